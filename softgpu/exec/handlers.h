#pragma once

// The handlers of one instruction-set level, found by name: "add.u32", "fma.f32.ftz", "ld.global.u8.32".

#include <string_view>
#include <unordered_map>

#include "softgpu/exec/micro_op.h"

namespace softgpu {

enum class BoolOp : uint8_t { kNone, kAnd, kOr, kXor };

// A video instruction, packed into the imm of its micro-op.
struct Video {
  enum class What : uint8_t {
    kAdd,
    kSubtract,
    kAverage,
    kDifference,
    kMinimum,
    kMaximum,
    kShiftLeft,
    kShiftRight,
    kMultiplyAdd,
    kEqual,
    kNotEqual,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
  };
  enum class Then : uint8_t { kMerge, kAdd, kMinimum, kMaximum };  // what becomes of c
  // The part of an operand: 0 all of it, 1..4 a byte, 5 and 6 a half.
  uint64_t what : 4, then : 2, elements : 3, signed_a : 1, signed_b : 1, signed_d : 1, saturate : 1, wrap : 1;
  uint64_t part_a : 3, part_b : 3, part_d : 3;
  uint64_t negate_product : 1, negate_c : 1, plus_one : 1, shift : 4;
  // SIMD: which of the elements of {a, b} each element takes, 4 bits each; which elements of d are written.
  uint64_t pick_a : 12, pick_b : 12, write : 4;
};
static_assert(sizeof(Video) == 8);

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

// The best level of this machine, not above what SOFTGPU_ISA says.
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
HandlerRows runtime_rows();        // vprintf, __assertfail, malloc, free
HandlerRows call_rows();           // results of calls, the stack
HandlerRows child_grid_rows();     // what libcudadevrt asks for
HandlerRows matrix_memory_rows();  // fragments from and to memory
HandlerRows mbarrier_rows();
HandlerRows async_rows();  // asynchronous copies
HandlerRows texture_rows();
HandlerRows surface_rows();
HandlerRows bulk_rows();
HandlerRows cluster_rows();
HandlerRows multimem_rows();
HandlerRows tensor_map_rows();

}  // namespace softgpu
