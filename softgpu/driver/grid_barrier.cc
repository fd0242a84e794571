#include "softgpu/driver/grid_barrier.h"

namespace softgpu {
namespace {

// The handle is the address of the grid's workspace, 0 in a launch that is not cooperative. Bit 0 of the flags: one
// thread calls for its block, which has met already. The count of arrivals only grows; each barrier waits for the next
// multiple of the number of blocks.
constexpr char kText[] = R"(.version 7.0
.target sm_70
.address_size 64

.visible .func (.param .b64 handle) __cuda_syscall_CGS_get_intrinsic_handle(.param .b32 scope)
{
  .reg .b32 %r<3>;
  .reg .b64 %rd<2>;
  mov.b32 %r1, %envreg1;
  mov.b32 %r2, %envreg2;
  mov.b64 %rd1, {%r2, %r1};
  st.param.b64 [handle], %rd1;
  ret;
}

.visible .func (.param .b32 result) __cuda_syscall_CGS_sync(.param .b64 handle, .param .b32 flags)
{
  .reg .pred %p<5>;
  .reg .b32 %r<12>;
  .reg .b64 %rd<9>;
  ld.param.b64 %rd1, [handle];
  ld.param.b32 %r1, [flags];
  and.b32 %r2, %r1, 1;
  setp.ne.u32 %p1, %r2, 0;
  @%p1 bra ARRIVE;
  bar.sync 0;
  mov.u32 %r3, %tid.x;
  mov.u32 %r4, %tid.y;
  mov.u32 %r5, %tid.z;
  or.b32 %r6, %r3, %r4;
  or.b32 %r7, %r6, %r5;
  setp.ne.u32 %p2, %r7, 0;
  @%p2 bra MEET;
ARRIVE:
  mov.u32 %r8, %nctaid.x;
  mov.u32 %r9, %nctaid.y;
  mov.u32 %r10, %nctaid.z;
  mul.lo.u32 %r11, %r8, %r9;
  mul.wide.u32 %rd2, %r11, %r10;
  fence.acq_rel.gpu;
  atom.add.u64 %rd3, [%rd1+32], 1;
  rem.u64 %rd4, %rd3, %rd2;
  sub.u64 %rd5, %rd3, %rd4;
  add.u64 %rd6, %rd5, %rd2;
WAIT:
  ld.volatile.u64 %rd7, [%rd1+32];
  setp.lt.u64 %p3, %rd7, %rd6;
  @%p3 bra WAIT;
  fence.acq_rel.gpu;
MEET:
  @%p1 bra END;
  bar.sync 0;
END:
  st.param.b32 [result], 0;
  ret;
}
)";

}  // namespace

PtxUnit grid_barrier_unit() { return {.name = "grid barrier", .text = kText}; }

}  // namespace softgpu
