#pragma once

// When the work of streams runs. As soon as it can, unless the environment says otherwise:
//   SOFTGPU_LATE=1   as late as possible: a stream does nothing until somebody waits for it (a synchronising call, a
//                    blocking copy, another stream that must go on, many queries in a row). What a program forgot to
//                    wait for has then not happened.
//   SOFTGPU_SEED=N   N a number: late, and one task at a time in a drawn order of all streams that could go on, the
//   same
//                    in each run of a program whose calls come from one thread. The waiting thread runs the tasks.
// A program that polls memory and calls nothing is noticed after a second without progress; then work runs as usual.
//
// Threads: any.

#include <cstdint>
#include <memory>

namespace softgpu {

class Stream;

enum class StreamOrder { kEager, kLate, kSeeded };

// Read from the environment at the first use.
StreamOrder stream_order();

inline constexpr unsigned kPollsMax = 8;       // queries in vain before the work behind them is run
inline constexpr uint64_t kPatienceMs = 1000;  // without progress, for those who poll memory

// kSeeded: a stream that has work, which the draw may choose from now on.
void add_to_draw(const std::shared_ptr<Stream>& stream);
// kSeeded: runs drawn tasks until the stream has done `number` of them.
void draw_until(Stream& stream, uint64_t number);
// A number below `count`: the next of the seeded sequence that orders independent nodes of graphs.
size_t draw(size_t count);

}  // namespace softgpu
