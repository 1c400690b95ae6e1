#include "agent/rank_group.hpp"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "agent/mpi_wire.hpp"
#include "agent/node_container.hpp"
#include "agent/rank_link.hpp"
#include "agent/shared_beat.hpp"
#include "agent/stage_store.hpp"
#include "container/image_store.hpp"

namespace mds::agent {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kOutputDelay{10};      // lines of this time travel together
constexpr size_t kBatchBytes = 256u << 10;
constexpr milliseconds kContainerPatience{3000};  // for a container to end by itself
constexpr milliseconds kKillRetry{50};        // for processes whose end nobody tells us, or that cannot die yet

struct Rank {
  enum class State { starting, running, failed, ended };  // failed: to be reaped, reported already

  Rank(asio::io_context& io, RankSpec s) : spec(std::move(s)), pidfd(io), start_report(io) {}
  bool lives() const { return state != State::ended; }

  RankSpec spec;
  State state = State::ended;
  pid_t pid = -1;
  asio::posix::stream_descriptor pidfd;
  asio::posix::stream_descriptor start_report;
  std::unique_ptr<RankOutput> output;
  std::unique_ptr<RankLink> link;
  bool speaks = false;              // said rank_hello
  std::optional<ExitStatus> abort;  // its MPI_Abort, for which it was killed
  std::optional<SharedBeat> beat;
  uint64_t beats_seen = 0;
  Clock::time_point beat_changed;
};

}  // namespace

struct RankGroup::Impl : std::enable_shared_from_this<RankGroup::Impl> {
  enum class Phase { none, asking, terminating, killing };

  Impl(asio::io_context& i, ProcessMark& m, Events e)
      : io(i), mark(m), events(std::move(e)), child_signals(i, SIGCHLD), output_timer(i), stop_timer(i) {}

  void launch_all(const NodeStart& start);
  void enter_container(const NodeStart& start);
  Status launch(Rank& rank, const NodeStart& start);
  Status offer_mpi(const NodeStart& start);
  void watch_start(const std::shared_ptr<Rank>& rank);
  void watch_end(const std::shared_ptr<Rank>& rank);
  void settle_start(Rank& rank);
  bool settle_end(Rank& rank);
  Status on_link_message(Rank& rank, const Message& message);

  void watch_children();
  bool reap_children();

  void send_output_soon();
  void send_output();
  void send_output_of(Rank& rank);

  void begin_stop(const StopTimes& times);
  void advance();
  void terminate(bool only_silent);
  void kill_all();
  bool kill_container(bool childless);
  void finish_stop();
  bool any_lives() const;
  Rank* find(int rank);

  asio::io_context& io;
  ProcessMark& mark;
  Events events;
  asio::signal_set child_signals;
  asio::steady_timer output_timer;
  bool output_timer_runs = false;
  asio::steady_timer stop_timer;
  std::vector<std::shared_ptr<Rank>> ranks;
  bool clean = true;               // nothing was forked since nothing was left
  std::unique_ptr<MpiWire> mpi;    // of ranks that are MPI programs
  std::unique_ptr<NodeContainer> container;
  bool container_runs = false;
  std::optional<Clock::time_point> container_until;  // set once it was let go
  Phase phase = Phase::none;
  Clock::time_point term_at, kill_at;
  bool closed = false;
};

// ------------------------------------------------------------------------------------------------------ start and end

/// Its exchanges are made in the name of the node's first rank.
Status RankGroup::Impl::offer_mpi(const NodeStart& start) {
  const auto world = mpi_world(start);
  if (!world) return world.error();
  const std::string folder = mpi_folder(*world);
  mark.expect_folder(folder);
  MpiWire::Events wire;
  wire.exchange = [this, world = *world](const std::string& name, const std::string& value) {
    events.on_exchange(world.first_rank(), {{"name", name},
                                            {"index", world.node},
                                            {"count", world.nodes},
                                            {"value", nlohmann::json::binary({value.begin(), value.end()})}});
  };
  wire.on_note = events.on_note;
  wire.on_abort = [this](int number, int code) {
    Rank* const rank = find(number);
    if (!rank || !rank->lives() || rank->abort) return;
    events.on_note("rank " + std::to_string(number) + " has called MPI_Abort, code " + std::to_string(code));
    rank->abort = ExitStatus{code, std::nullopt, false, Clock::now()};  // those that miss it then come after it
    send_signal(rank->pidfd.native_handle(), SIGKILL);
  };
  mpi = std::make_unique<MpiWire>(io, *world, folder, std::move(wire));
  return {};
}

void RankGroup::Impl::launch_all(const NodeStart& start) {
  if (start.mpi && !start.ranks.empty()) {
    if (const Status offered = offer_mpi(start); !offered) {
      for (const auto& rank : ranks) events.on_start_failed(rank->spec.rank, offered.error().message);
      return;
    }
  }
  for (const auto& rank : ranks) {
    if (Status launched = launch(*rank, start); !launched) {
      events.on_start_failed(rank->spec.rank, launched.error().message);
      continue;
    }
    watch_start(rank);
    watch_end(rank);
  }
}

// One container for all ranks, which are forked from here and enter it.
void RankGroup::Impl::enter_container(const NodeStart& start) {
  const auto& env = start.ranks[0].env;
  const auto value = [&](const char* name) { return env.count(name) ? env.at(name) : std::string("0"); };
  const std::string name =
      "mds-" + value("MDS_RUN_ID") + "-n" + value("GROUP_RANK") + "-a" + std::to_string(start.attempt);
  clean = false;
  const std::string store = start.stage.folder.empty() ? container::default_image_store()
                                                       : StageStore::images_of(start.stage.folder);
  container = std::make_unique<NodeContainer>(io, start.container, store, name, mark, [this, start](Status ready) {
    if (closed || phase != Phase::none) return;
    if (!ready) {
      container.reset();
      for (const auto& rank : ranks) events.on_start_failed(rank->spec.rank, ready.error().message);
      return;
    }
    container_runs = true;
    for (const auto& rank : ranks) {
      const auto& image = container->session().environment();
      rank->spec.env.insert(image.begin(), image.end());  // insert() keeps what the plan has set
    }
    launch_all(start);
  });
}

Status RankGroup::Impl::launch(Rank& rank, const NodeStart& start) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return system_error("control socket", errno);
  UniqueFd ours(pair[0]), theirs(pair[1]);
  auto beat = SharedBeat::create();
  if (!beat) return beat.error();
  RankDescriptors fds{theirs.get(), beat->fd()};
  UniqueFd mpi_socket;
  if (mpi) {
    auto side = mpi->join(rank.spec.rank);
    if (!side) return side.error();
    mpi_socket = std::move(side->socket);
    fds.mpi = mpi_socket.get();
    rank.spec.env.merge(side->environment);
  }
  const container::Entrance outside;
  auto process = start_rank_process(rank.spec, fds, container_runs ? container->session().entrance() : outside);
  if (!process) return process.error();
  clean = false;
  rank.state = Rank::State::starting;
  rank.pid = process->pid;
  rank.pidfd.assign(process->pidfd.release());
  rank.start_report.assign(process->start_report.release());
  rank.beat = *std::move(beat);
  rank.beat_changed = Clock::now();
  const int number = rank.spec.rank;
  rank.output = std::make_unique<RankOutput>(
      io.get_executor(), std::move(process->output), std::move(process->errors),
      RankOutput::Options{rank.spec.log_path, start.tail_lines, start.forward_output}, [this] { send_output_soon(); },
      [this, number](const std::string& text) { events.on_note("rank " + std::to_string(number) + ": " + text); });
  rank.link = std::make_unique<RankLink>(
      io.get_executor(), std::move(ours), [this, &rank](const Message& m) { return on_link_message(rank, m); },
      [this, number](const Error& e) { events.on_note("rank " + std::to_string(number) + ": " + e.message); });
  return {};
}

void RankGroup::Impl::watch_start(const std::shared_ptr<Rank>& rank) {
  rank->start_report.async_wait(asio::posix::stream_descriptor::wait_read,
                                [self = shared_from_this(), rank](error_code error) {
                                  if (error || self->closed) return;
                                  self->settle_start(*rank);
                                  if (rank->state == Rank::State::starting) self->watch_start(rank);
                                });
}

void RankGroup::Impl::settle_start(Rank& rank) {
  if (rank.state != Rank::State::starting) return;
  const StartReport report = read_start_report(rank.start_report.native_handle(), rank.spec);
  if (!report.complete) {
    for (const std::string& note : report.notes) events.on_note("rank " + std::to_string(rank.spec.rank) + ": " + note);
    return;
  }
  error_code ignored;
  rank.start_report.close(ignored);
  if (report.failure) {
    rank.state = Rank::State::failed;
    events.on_start_failed(rank.spec.rank, report.failure->message);
  } else {
    rank.state = Rank::State::running;
    events.on_started(rank.spec.rank, rank.pid, report.notes);
  }
}

void RankGroup::Impl::watch_end(const std::shared_ptr<Rank>& rank) {
  rank->pidfd.async_wait(asio::posix::stream_descriptor::wait_read,
                         [self = shared_from_this(), rank](error_code error) {
                           if (error || self->closed || !rank->lives()) return;
                           if (!self->settle_end(*rank)) return self->watch_end(rank);
                           self->advance();
                         });
}

// Reaps and reports; false when it runs still.
bool RankGroup::Impl::settle_end(Rank& rank) {
  auto status = reap(rank.pid);
  if (!status) return false;
  if (rank.abort) status = rank.abort;
  settle_start(rank);
  const bool report = rank.state == Rank::State::running;
  rank.link->drain();
  rank.output->drain();
  send_output_of(rank);
  rank.state = Rank::State::ended;
  error_code ignored;
  rank.pidfd.close(ignored);
  rank.link.reset();
  if (report) events.on_exited(rank.spec.rank, rank.pid, *status, rank.output->tail());
  return true;
}

Status RankGroup::Impl::on_link_message(Rank& rank, const Message& message) {
  switch (message.type) {
    case MessageType::rank_hello:
      rank.speaks = true;
      if (phase == Phase::asking) rank.link->send(MessageType::rank_stop);
      return {};
    case MessageType::rank_progress:
      events.on_progress(rank.spec.rank, message.body);
      return {};
    case MessageType::rank_exchange:
      events.on_exchange(rank.spec.rank, message.body);
      return {};
    default:
      return corrupt(std::string("unexpected message ") + to_string(message.type) + " from a rank");
  }
}

// SIGCHLD is for the others: orphans of the ranks that have become our children.
void RankGroup::Impl::watch_children() {
  child_signals.async_wait([self = shared_from_this()](error_code error, int) {
    if (error || self->closed) return;
    self->watch_children();
    self->reap_children();
    self->advance();
  });
}

// True when no child is left at all. A rank found here before its pidfd was served is settled all the same.
bool RankGroup::Impl::reap_children() {
  siginfo_t info{};
  while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
    if (info.si_pid == 0) return false;
    const auto is_it = [&](const auto& rank) { return rank->lives() && rank->pid == info.si_pid; };
    const auto rank = std::find_if(ranks.begin(), ranks.end(), is_it);
    if (rank == ranks.end()) {
      waitpid(info.si_pid, nullptr, 0);
    } else {
      settle_end(**rank);
    }
    info = {};
  }
  return errno == ECHILD;
}

// ------------------------------------------------------------------------------------------------------------- output

void RankGroup::Impl::send_output_soon() {
  if (std::exchange(output_timer_runs, true)) return;
  output_timer.expires_after(kOutputDelay);
  output_timer.async_wait([self = shared_from_this()](error_code error) {
    self->output_timer_runs = false;
    if (!error && !self->closed) self->send_output();
  });
}

void RankGroup::Impl::send_output() {
  for (const auto& rank : ranks) {
    if (rank->output) send_output_of(*rank);
  }
}

void RankGroup::Impl::send_output_of(Rank& rank) {
  while (rank.output->has_pending()) {
    if (!events.may_output()) return send_output_soon();
    events.on_output(rank.spec.rank, rank.output->take(kBatchBytes));
  }
}

// --------------------------------------------------------------------------------------------------------------- stop

bool RankGroup::Impl::any_lives() const {
  return std::any_of(ranks.begin(), ranks.end(), [](const auto& rank) { return rank->lives(); });
}

Rank* RankGroup::Impl::find(int rank) {
  const auto is_it = [&](const auto& one) { return one->spec.rank == rank && one->lives(); };
  const auto found = std::find_if(ranks.begin(), ranks.end(), is_it);
  return found == ranks.end() ? nullptr : found->get();
}

void RankGroup::Impl::begin_stop(const StopTimes& times) {
  const auto now = Clock::now();
  if (phase == Phase::none) {
    phase = Phase::asking;
    term_at = now + times.drain;
    kill_at = term_at + times.grace;
    if (times.drain > milliseconds(0)) {
      for (const auto& rank : ranks) {
        if (rank->lives() && rank->speaks) rank->link->send(MessageType::rank_stop);
      }
      terminate(/*only_silent=*/true);
    }
  } else {
    term_at = std::min(term_at, now + times.drain);
    kill_at = std::min(kill_at, std::max(now, term_at) + times.grace);
  }
  advance();
}

// Takes a stop as far as it goes now; called when a deadline or a child has passed.
void RankGroup::Impl::advance() {
  if (phase == Phase::none) return;
  const auto now = Clock::now();
  if (phase == Phase::asking && now >= term_at) {
    phase = Phase::terminating;
    if (now < kill_at) terminate(/*only_silent=*/false);
  }
  // What ranks left behind when they ended has no claim to a grace.
  if (now >= kill_at || !any_lives()) phase = Phase::killing;
  if (phase == Phase::killing) return kill_all();
  stop_timer.expires_at(phase == Phase::asking ? std::min(term_at, kill_at) : kill_at);
  stop_timer.async_wait([self = shared_from_this()](error_code error) {
    if (!error && !self->closed) self->advance();
  });
}

void RankGroup::Impl::terminate(bool only_silent) {
  for (const auto& rank : ranks) {
    if (!rank->lives() || (only_silent && rank->speaks)) continue;
    // Not a group leader yet if it has just been forked: then it has no children either.
    const bool whole_group = kill(-rank->pid, SIGTERM) == 0;
    if (!whole_group) send_signal(rank->pidfd.native_handle(), SIGTERM);
    if (whole_group) kill(-rank->pid, SIGCONT);  // who was stopped hears of no signal but this and SIGKILL
  }
}

void RankGroup::Impl::kill_all() {
  if (clean) return finish_stop();
  const bool childless = reap_children();
  if (phase != Phase::killing) return;  // finished from within an event
  if (!container || kill_container(childless)) {
    const auto left = childless ? marked_processes(mark) : descendants(getpid());
    if (childless && left.empty()) {
      mark.clear();  // the guard need not look for what has just been found not to be there
      return finish_stop();
    }
    kill_processes(left);
  }
  // SIGCHLD brings us back here; the timer is for strangers, whose end nobody tells us, and for forks in between.
  stop_timer.expires_after(kKillRetry);
  stop_timer.async_wait([self = shared_from_this()](error_code error) {
    if (!error && !self->closed) self->advance();
  });
}

// Lets the container end by itself, without what ranks left behind in it, and by force when it had its time. True when
// it is gone.
bool RankGroup::Impl::kill_container(bool childless) {
  const bool settled = container->forget();
  if (!container_until) container_until = Clock::now() + kContainerPatience;
  const bool forced = Clock::now() >= *container_until;
  if (!childless || !settled) {
    kill_processes(forced ? descendants(getpid()) : marked_processes(mark));
    return false;
  }
  if (forced) container->clean_up();
  container.reset();
  container_runs = false;
  container_until.reset();
  return true;
}

void RankGroup::Impl::finish_stop() {
  stop_timer.cancel();
  for (const auto& rank : ranks) {
    if (rank->output) rank->output->drain();
  }
  send_output();
  ranks.clear();
  mpi.reset();
  clean = true;
  phase = Phase::none;
  events.on_stopped();
}

// ------------------------------------------------------------------------------------------------------------- public

RankGroup::RankGroup(asio::io_context& io, ProcessMark& mark, Events events)
    : impl_(std::make_shared<Impl>(io, mark, std::move(events))) {
  impl_->watch_children();
}

RankGroup::~RankGroup() {
  impl_->closed = true;
  impl_->child_signals.cancel();
  impl_->stop_timer.cancel();
  impl_->output_timer.cancel();
  impl_->ranks.clear();
}

void RankGroup::start(const NodeStart& start) {
  impl_->ranks.clear();
  for (const RankSpec& spec : start.ranks) impl_->ranks.push_back(std::make_shared<Rank>(impl_->io, spec));
  if (!start.ranks.empty()) {
    const auto& env = start.ranks[0].env;
    const auto entry = [&](const char* name) {
      const auto at = env.find(name);
      return at == env.end() ? std::string() : at->first + "=" + at->second;
    };
    impl_->mark.set(entry("MDS_RUN_ID"), entry("GROUP_RANK"));
  }
  if (start.container.runtime == container::Runtime::none || start.ranks.empty()) return impl_->launch_all(start);
  impl_->enter_container(start);
}

bool RankGroup::is_busy() const {
  return impl_->phase != Impl::Phase::none || impl_->any_lives() || impl_->container != nullptr;
}

void RankGroup::stop(const StopTimes& times) { impl_->begin_stop(times); }

void RankGroup::ask_for_checkpoint() {
  for (const auto& rank : impl_->ranks) {
    if (rank->lives() && rank->speaks) rank->link->send(MessageType::rank_checkpoint_now);
  }
}

void RankGroup::give_exchange_result(const std::vector<int>& ranks, const nlohmann::json& body) {
  const std::string name = body.at("name").is_string() ? body.at("name").get<std::string>() : "";
  if (impl_->mpi && name.starts_with(MpiWire::kPrefix)) {
    std::vector<std::string> values;
    for (const auto& value : body.at("values")) {
      if (value.is_binary()) values.emplace_back(value.get_binary().begin(), value.get_binary().end());
    }
    if (const Status done = impl_->mpi->on_exchange(name, values); !done) impl_->events.on_note(done.error().message);
    return;
  }
  for (const int number : ranks) {
    if (Rank* rank = impl_->find(number)) rank->link->send(MessageType::rank_exchange_result, body);
  }
}

bool RankGroup::signal(int rank, int signal) {
  Rank* found = impl_->find(rank);
  return found && send_signal(found->pidfd.native_handle(), signal);
}

std::vector<RankGroup::RankPid> RankGroup::pids() const {
  std::vector<RankPid> out;
  for (const auto& rank : impl_->ranks) {
    if (rank->state == Rank::State::running) out.push_back({rank->spec.rank, rank->pid});
  }
  return out;
}

std::vector<RankBeat> RankGroup::beats() {
  std::vector<RankBeat> out;
  const auto now = Clock::now();
  for (const auto& rank : impl_->ranks) {
    if (rank->state != Rank::State::running) continue;
    const uint64_t beats = rank->beat->beats();
    if (std::exchange(rank->beats_seen, beats) != beats) rank->beat_changed = now;
    const auto age = std::chrono::duration_cast<milliseconds>(now - rank->beat_changed);
    out.push_back({rank->spec.rank, beats, rank->beat->step(), age});
  }
  return out;
}

}  // namespace mds::agent
