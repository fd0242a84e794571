#pragma once

// The handlers of one instruction-set level, found by name: "add.u32", "fma.f32.ftz", "ld.global.u8.32".

#include <string_view>
#include <unordered_map>

#include "softgpu/exec/micro_op.h"

namespace softgpu {

enum class BoolOp : uint8_t { kNone, kAnd, kOr, kXor };

enum class VideoOp : uint8_t { kAdd, kSubtract, kAverage, kDifference, kMinimum, kMaximum };
enum VideoFlag : uint8_t {
  kVideoSignedA = 1,
  kVideoSignedB = 2,
  kVideoSignedD = 4,
  kVideoSaturate = 8,
  kVideoAdd = 16,
};

struct HandlerRow {
  const char* name;
  Handler fn;
};

using HandlerTable = std::unordered_map<std::string_view, Handler>;

// A span without the template library, see lanes.h.
struct HandlerRows {
  const HandlerRow* rows;
  unsigned count;
};

enum class IsaLevel : uint8_t { kV2, kV3, kV4 };

// The best level of this machine.
IsaLevel best_isa_level();
bool isa_level_runs_here(IsaLevel level);

// Handlers of the level, and those that do not depend on it.
const HandlerTable& handlers_of(IsaLevel level);

#define SOFTGPU_DECLARE_LEVEL(level) \
  namespace level {                  \
  HandlerRows integer_rows();        \
  HandlerRows compare_rows();        \
  HandlerRows float_rows();          \
  HandlerRows double_rows();         \
  HandlerRows half_rows();           \
  HandlerRows convert_rows();        \
  HandlerRows memory_rows();         \
  HandlerRows shuffle_rows();        \
  HandlerRows tensor_rows();         \
  HandlerRows narrow_rows();         \
  }
SOFTGPU_DECLARE_LEVEL(isa_v2)
SOFTGPU_DECLARE_LEVEL(isa_v3)
SOFTGPU_DECLARE_LEVEL(isa_v4)
#undef SOFTGPU_DECLARE_LEVEL

HandlerRows math_rows();  // transcendental functions, directed rounding
HandlerRows warp_rows();  // votes, matches, reductions
HandlerRows atomic_rows();
HandlerRows misc_rows();           // packing, clocks, results of calls
HandlerRows video_rows();          // packed integers
HandlerRows runtime_rows();        // vprintf, __assertfail
HandlerRows matrix_memory_rows();  // fragments from and to memory
HandlerRows mbarrier_rows();
HandlerRows async_rows();  // asynchronous copies
HandlerRows bulk_rows();
HandlerRows cluster_rows();

}  // namespace softgpu
