// _exit() and _Exit() end a process without its destructors, as Python does in the children of multiprocessing: what
// they still have in their buffers is written first.

#include <sys/syscall.h>
#include <unistd.h>

#include "interpose/trace/recorder.h"

#pragma GCC visibility push(default)
extern "C" {

[[noreturn]] void _exit(int status) {
  tide::trace::end_at_once();
  while (true) syscall(SYS_exit_group, status);
}

[[noreturn]] void _Exit(int status) noexcept { _exit(status); }

}  // extern "C"
#pragma GCC visibility pop
