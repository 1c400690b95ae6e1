#include "trainer/engine/pipeline.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>

namespace mds::trainer {
namespace {

using Op = PipelineOp;

/// The neighbours' end of one stage: what an op needs before it and passes on after it.
class Neighbours {
 public:
  Neighbours(StageModel& model, Communicator& pipeline, const PipelineWork& work)
      : model_(model), pipeline_(pipeline), work_(work) {}

  /// Passes on the output of `done` and receives the input of `next` (either may be null), both in one exchange: the
  /// neighbour that takes our output may at that moment be waiting for us to take its own. Returns the input, undefined
  /// if `next` needs none.
  at::Tensor exchange(const Op* done, const at::Tensor& output, const Op* next) {
    std::vector<PeerTransfer> transfers;
    if (done && has_peer(done->kind, true)) {
      transfers.push_back({PeerTransfer::Kind::send, output.contiguous(), peer(done->kind, true)});
    }
    at::Tensor input;
    if (next && has_peer(next->kind, false)) {
      const at::Tensor& tokens = work_.batches[next->micro_batch].tokens;
      input = at::empty(model_.hidden_shape(tokens.size(0), tokens.size(1)),
                        tokens.options().dtype(work_.hidden_dtype));
      transfers.push_back({PeerTransfer::Kind::receive, input, peer(next->kind, false)});
    }
    if (!transfers.empty()) pipeline_.transfer(std::move(transfers));
    return input;
  }

 private:
  /// Hidden states flow to the next stage, gradients to the one before.
  int peer(Op::Kind kind, bool output) const {
    return pipeline_.rank() + ((kind == Op::Kind::forward) == output ? 1 : -1);
  }
  bool has_peer(Op::Kind kind, bool output) const {
    return (kind == Op::Kind::forward) == output ? !model_.is_last() : !model_.is_first();
  }

  StageModel& model_;
  Communicator& pipeline_;
  const PipelineWork& work_;
};

void add_loss(at::Tensor& sum, const at::Tensor& loss) { sum = sum.defined() ? at::add(sum, loss) : loss; }

}  // namespace

at::Tensor run_pipeline(StageModel& model, Communicator& pipeline, const std::vector<PipelineOp>& ops,
                        const PipelineWork& work, StageClock& clock) {
  Neighbours neighbours(model, pipeline, work);
  at::Tensor loss;
  clock.start();
  at::Tensor input = ops.empty() ? at::Tensor() : neighbours.exchange(nullptr, {}, &ops[0]);
  for (size_t i = 0; i < ops.size(); ++i) {
    const Op& op = ops[i];
    at::Tensor output;
    clock.pass_begins();
    if (op.kind == Op::Kind::forward) {
      output = model.forward(op.micro_batch, work.batches[op.micro_batch], input, work.loss_denominator);
      if (model.is_last()) add_loss(loss, output);
    } else {
      output = model.backward(op.micro_batch, input, work.loss_scale);
    }
    clock.pass_ends();
    input = neighbours.exchange(&op, output, i + 1 < ops.size() ? &ops[i + 1] : nullptr);
  }
  clock.stop();
  return loss;
}

at::Tensor evaluate_pipeline(StageModel& model, Communicator& pipeline, const PipelineWork& work) {
  Neighbours neighbours(model, pipeline, work);
  const int count = static_cast<int>(work.batches.size());
  at::Tensor loss;
  for (int i = 0; i < count; ++i) {
    const Op op{Op::Kind::forward, i};
    const at::Tensor input = neighbours.exchange(nullptr, {}, &op);
    const at::Tensor output = model.evaluate(work.batches[i], input, work.loss_denominator);
    if (model.is_last()) add_loss(loss, output);
    neighbours.exchange(&op, output, nullptr);
  }
  return loss;
}

}  // namespace mds::trainer
