#include "fixture.h"

namespace conformance {

const char* const kKernels = R"(.version 8.0
.target sm_75
.address_size 64

.visible .global .align 4 .u32 counter = 40;
.visible .const .align 4 .u32 constants[4] = {1, 2, 3, 4};
.extern .shared .align 16 .b8 dynamic_memory[];

.visible .entry fill(.param .u64 data, .param .u32 count, .param .u32 value) {
  .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [data]; ld.param.u32 %r1, [count]; ld.param.u32 %r2, [value];
  mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x;
  mad.lo.u32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p, %r6, %r1;
  @%p bra done;
  mad.wide.u32 %rd2, %r6, 4, %rd1;
  st.global.u32 [%rd2], %r2;
done:
  ret;
}

.visible .entry scale(.param .u64 data, .param .u32 count, .param .u32 factor) {
  .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [data]; ld.param.u32 %r1, [count]; ld.param.u32 %r2, [factor];
  mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x;
  mad.lo.u32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p, %r6, %r1;
  @%p bra done;
  mad.wide.u32 %rd2, %r6, 4, %rd1;
  ld.global.u32 %r7, [%rd2];
  mul.lo.u32 %r7, %r7, %r2;
  st.global.u32 [%rd2], %r7;
done:
  ret;
}

.visible .entry add_one(.param .u64 word) {
  .reg .b32 %r; .reg .b64 %rd;
  ld.param.u64 %rd, [word];
  ld.global.u32 %r, [%rd];
  add.u32 %r, %r, 1;
  st.global.u32 [%rd], %r;
  ret;
}

.visible .entry bump() {
  .reg .b32 %r;
  atom.global.add.u32 %r, [counter], 1;
  ret;
}

.visible .entry wild() {
  .reg .b64 %rd;
  mov.u64 %rd, 0x7000000000000;
  st.global.u32 [%rd], 1;
  ret;
}

.visible .entry trap_now() {
  trap;
  ret;
}

.visible .entry spin_until(.param .u64 flag) {
  .reg .pred %p; .reg .b32 %r; .reg .b64 %rd;
  ld.param.u64 %rd, [flag];
again:
  ld.volatile.global.u32 %r, [%rd];
  setp.eq.u32 %p, %r, 0;
  @%p bra again;
  ret;
}

.visible .entry limited() .maxntid 64, 1, 1 {
  ret;
}

.visible .entry shared_sum(.param .u64 out) {
  .shared .align 4 .b8 staged[4096];
  .reg .b32 %r<4>; .reg .b64 %rd;
  mov.u32 %r1, 7;
  st.shared.u32 [staged], %r1;
  ld.shared.u32 %r2, [staged];
  ld.param.u64 %rd, [out];
  st.global.u32 [%rd], %r2;
  ret;
}

.visible .entry dynamic(.param .u64 out) {
  .reg .b32 %r<4>; .reg .b64 %rd;
  mov.u32 %r1, %dynamic_smem_size;
  ld.param.u64 %rd, [out];
  st.global.u32 [%rd], %r1;
  ret;
}
)";

}  // namespace conformance
