#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {

const char* const kKernels = R"(
.version 8.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 counter = 40;

.visible .entry scale(.param .u64 data, .param .u32 count, .param .u32 factor)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [data];
  ld.param.u32 %r1, [count];
  ld.param.u32 %r2, [factor];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra done;
  cvta.to.global.u64 %rd1, %rd1;
  mul.wide.u32 %rd2, %r6, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.u32 %r7, [%rd3];
  mul.lo.s32 %r7, %r7, %r2;
  st.global.u32 [%rd3], %r7;
done:
  ret;
}

.visible .entry hold(.param .u64 flag)
{
  .reg .pred %p<2>;
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [flag];
again:
  ld.volatile.global.u32 %r1, [%rd1];
  setp.eq.u32 %p1, %r1, 0;
  @%p1 bra again;
  ret;
}

.visible .entry wild()
{
  .reg .b64 %rd<2>;
  mov.u64 %rd1, 64;
  st.global.u32 [%rd1], 1;
  ret;
}

.visible .entry trap_now()
{
  trap;
}

.visible .entry count_up()
{
  .reg .b32 %r<3>;
  ld.global.u32 %r1, [counter];
  add.s32 %r2, %r1, 1;
  st.global.u32 [counter], %r2;
  ret;
}

.visible .entry small()
.maxntid 64, 1, 1
{
  ret;
}

.visible .entry staged()
{
  .shared .align 4 .b8 room[4096];
  .reg .b32 %r<2>;
  mov.u32 %r1, room;
  st.shared.u32 [%r1], 1;
  ret;
}
)";

}  // namespace softgpu
