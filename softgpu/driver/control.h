#pragma once

// A socket through which a person or a test looks at the software GPUs of a process and makes them misbehave. A line
// in, a line of JSON out: {"ok":true,...} or {"ok":false,"error":"..."}.
//
//   devices                       kernels [DEVICE]              faults
//   inject FAULTS                 clear [DEVICE]                repair DEVICE
//   pause DEVICE                  resume DEVICE                 release DEVICE (kernels that hang by a fault)
//   time off|virtual|scaled[:F]   help
//
// The socket's file has mode 0600. "%p" in its name stands for the process's number.

#include <string>

namespace softgpu {

// Listens in a thread of its own; a line in the log when it cannot.
void start_control(const std::string& path);

// The answer to one line, without the line break.
std::string control_answer(const std::string& line);

}  // namespace softgpu
