#include "softgpu/exec/handlers.h"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace softgpu {
namespace {

void add_rows(HandlerTable* table, HandlerRows rows) {
  for (unsigned i = 0; i < rows.count; ++i) (*table)[rows.rows[i].name] = rows.rows[i].fn;
}

#define SOFTGPU_ADD_LEVEL(level)                                                                                     \
  for (const HandlerRows rows :                                                                                      \
       {level::integer_rows(), level::compare_rows(), level::float_rows(), level::double_rows(), level::half_rows(), \
        level::convert_rows(), level::memory_rows(), level::shuffle_rows(), level::tensor_rows(),                    \
        level::narrow_rows()}) {                                                                                     \
    add_rows(&table, rows);                                                                                          \
  }

HandlerTable make_table(IsaLevel level) {
  HandlerTable table;
#ifdef SOFTGPU_HAVE_V2
  if (level == IsaLevel::kV2) {
    SOFTGPU_ADD_LEVEL(isa_v2)
  }
#endif
#ifdef SOFTGPU_HAVE_V3
  if (level == IsaLevel::kV3) {
    SOFTGPU_ADD_LEVEL(isa_v3)
  }
#endif
#ifdef SOFTGPU_HAVE_V4
  if (level == IsaLevel::kV4) {
    SOFTGPU_ADD_LEVEL(isa_v4)
  }
#endif
  for (const HandlerRows rows : {texture_rows(), surface_rows()}) add_rows(&table, rows);
  for (const HandlerRows rows : {math_rows(), warp_rows(), atomic_rows(), misc_rows(), video_rows(), call_rows(),
                                 child_grid_rows(), runtime_rows()})
    add_rows(&table, rows);
  for (const HandlerRows rows : {matrix_memory_rows(), mbarrier_rows(), async_rows(), bulk_rows(), cluster_rows(),
                                 multimem_rows(), tensor_map_rows()})
    add_rows(&table, rows);
  return table;
}

bool built(IsaLevel level) {
#ifdef SOFTGPU_HAVE_V2
  if (level == IsaLevel::kV2) return true;
#endif
#ifdef SOFTGPU_HAVE_V3
  if (level == IsaLevel::kV3) return true;
#endif
#ifdef SOFTGPU_HAVE_V4
  if (level == IsaLevel::kV4) return true;
#endif
  return false;
}

}  // namespace

bool isa_level_runs_here(IsaLevel level) {
  if (!built(level)) return false;
  __builtin_cpu_init();
  if (level == IsaLevel::kV2) return true;
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") && __builtin_cpu_supports("movbe");
  if (level == IsaLevel::kV3) return v3;
  return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

IsaLevel best_isa_level() {
  const char* most = std::getenv("SOFTGPU_ISA");
  IsaLevel lowest = IsaLevel::kV2;
  for (const auto& [level, name] :
       {std::pair{IsaLevel::kV4, "v4"}, std::pair{IsaLevel::kV3, "v3"}, std::pair{IsaLevel::kV2, "v2"}}) {
    if (!isa_level_runs_here(level)) continue;
    lowest = level;
    if (most == nullptr || std::strcmp(most, name) >= 0) return level;
  }
  return lowest;  // nothing as low as that was built
}

const HandlerTable& handlers_of(IsaLevel level) {
  static const HandlerTable v2 = make_table(IsaLevel::kV2);
  static const HandlerTable v3 = make_table(IsaLevel::kV3);
  static const HandlerTable v4 = make_table(IsaLevel::kV4);
  return level == IsaLevel::kV2 ? v2 : level == IsaLevel::kV3 ? v3 : v4;
}

}  // namespace softgpu
