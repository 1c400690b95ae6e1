// The commands of mdslaunch. Each takes checked arguments, prints, and returns the program's exit code.
#pragma once

#include "launcher/cli.hpp"

namespace mds::launcher {

int run_command(const Arguments& arguments);
int plan_command(const Arguments& arguments);
int check_command(const Arguments& arguments);
int topo_command(const Arguments& arguments);
int submit_command(const Arguments& arguments);
int sbatch_command(const Arguments& arguments);
int doctor_command(const Arguments& arguments);
int status_command(const Arguments& arguments);
int logs_command(const Arguments& arguments);
int stop_command(const Arguments& arguments);
int stacks_command(const Arguments& arguments);
int attach_command(const Arguments& arguments);
int debug_command(const Arguments& arguments);
int top_command(const Arguments& arguments);
int completion_command(const Arguments& arguments);
int help_command(const Arguments& arguments);
int version_command(const Arguments& arguments);
int reference_command(const Arguments& arguments);

}  // namespace mds::launcher
