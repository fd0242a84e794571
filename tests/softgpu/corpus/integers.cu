// Integer intrinsics: bits, products, dot products, SIMD within a word, 128 bits.
__global__ void bits(unsigned* u, unsigned long long* l, int* i) {
  u[0] = __clz(i[0]) + __clzll(l[0]) + __popc(u[1]) + __popcll(l[1]) + __ffs(i[1]) + __ffsll(l[2]) + __brev(u[2]);
  l[3] = __brevll(l[3]), u[3] = __byte_perm(u[4], u[5], u[6]), u[7] = __fns(u[8], u[9], i[2]);
  u[10] = __funnelshift_l(u[1], u[2], u[3]) + __funnelshift_lc(u[1], u[2], u[3]) + __funnelshift_r(u[1], u[2], u[3]) +
          __funnelshift_rc(u[1], u[2], u[3]);
  i[3] = __mulhi(i[4], i[5]) + __mul24(i[4], i[5]) + __hadd(i[4], i[5]) + __rhadd(i[4], i[5]) + __sad(i[4], i[5], u[1]);
  u[11] = __umulhi(u[4], u[5]) + __umul24(u[4], u[5]) + __uhadd(u[4], u[5]) + __urhadd(u[4], u[5]) +
          __usad(u[4], u[5], u[1]);
  l[4] = __mul64hi(l[5], l[6]) + __umul64hi(l[5], l[6]);
  i[6] = __dp4a(i[7], i[8], i[9]) + __dp2a_lo(i[7], i[8], i[9]) + __dp2a_hi(i[7], i[8], i[9]);
  u[12] = __dp4a(u[7], u[8], u[9]) + __dp2a_lo(u[7], u[8], u[9]) + __dp2a_hi(u[7], u[8], u[9]);
  u[13] = __nv_bswap32(u[14]) ^ __nv_bswap16(static_cast<unsigned short>(u[15])), l[7] = __nv_bswap64(l[8]);
  i[10] = i[11] / i[12] + i[13] % i[14], u[16] = u[17] / u[18] + u[19] % u[20], l[9] = l[10] / l[11] + l[12] % l[13];
  i[15] = min(i[1], i[2]) + max(i[3], i[4]) + abs(i[5]), l[14] = umin(u[1], u[2]) + ullmax(l[1], l[2]) + llabs(l[3]);
}

// clang-format off
#define SIMD2(F) \
  F(__vabs2) F(__vabsss2) F(__vneg2) F(__vnegss2) F(__vabs4) F(__vabsss4) F(__vneg4) F(__vnegss4)
#define SIMD3(F) \
  F(__vadd2) F(__vaddss2) F(__vaddus2) F(__vsub2) F(__vsubss2) F(__vsubus2) F(__vavgs2) F(__vavgu2) F(__vhaddu2) \
  F(__vcmpeq2) F(__vcmpges2) F(__vcmpgeu2) F(__vcmpgts2) F(__vcmpgtu2) F(__vcmples2) F(__vcmpleu2) F(__vcmplts2) \
  F(__vcmpltu2) F(__vcmpne2) F(__vseteq2) F(__vsetges2) F(__vsetgeu2) F(__vsetgts2) F(__vsetgtu2) F(__vsetles2) \
  F(__vsetleu2) F(__vsetlts2) F(__vsetltu2) F(__vsetne2) F(__vmaxs2) F(__vmaxu2) F(__vmins2) F(__vminu2) \
  F(__vabsdiffs2) F(__vabsdiffu2) F(__vsads2) F(__vsadu2) F(__vadd4) F(__vaddss4) F(__vaddus4) F(__vsub4) \
  F(__vsubss4) F(__vsubus4) F(__vavgs4) F(__vavgu4) F(__vhaddu4) F(__vcmpeq4) F(__vcmpges4) F(__vcmpgeu4) \
  F(__vcmpgts4) F(__vcmpgtu4) F(__vcmples4) F(__vcmpleu4) F(__vcmplts4) F(__vcmpltu4) F(__vcmpne4) F(__vseteq4) \
  F(__vsetges4) F(__vsetgeu4) F(__vsetgts4) F(__vsetgtu4) F(__vsetles4) F(__vsetleu4) F(__vsetlts4) \
  F(__vsetltu4) F(__vsetne4) F(__vmaxs4) F(__vmaxu4) F(__vmins4) F(__vminu4) F(__vabsdiffs4) F(__vabsdiffu4) \
  F(__vsads4) F(__vsadu4)
#define SIMD4(F) \
  F(__viaddmax_s16x2) F(__viaddmax_u16x2) F(__viaddmin_s16x2) F(__viaddmin_u16x2) F(__viaddmax_s16x2_relu) \
  F(__viaddmin_s16x2_relu) F(__vimax3_s16x2) F(__vimax3_u16x2) F(__vimin3_s16x2) F(__vimin3_u16x2) \
  F(__vimax3_s16x2_relu) F(__vimin3_s16x2_relu) F(__viaddmax_s32) F(__viaddmax_u32) F(__viaddmin_s32) \
  F(__viaddmin_u32) F(__viaddmax_s32_relu) F(__vimax3_s32) F(__vimin3_u32) F(__vimax3_s32_relu)
// clang-format on

#define ONE(f) *u++ = f(a);
#define TWO(f) *u++ = f(a, b);
#define THREE(f) *u++ = f(a, b, c);
__global__ void simd(unsigned* u, unsigned a, unsigned b, unsigned c) {
  SIMD2(ONE)
  SIMD3(TWO)
  SIMD4(THREE)
  bool high = false, low = false;
  *u++ = __vibmax_s16x2(a, b, &high, &low) + __vibmin_u16x2(a, b, &high, &low) + high + low;
  *u++ = __vimax_s32_relu(a, b) + __vimin_s16x2_relu(a, b) + __vibmax_s32(a, b, &high) + high;
}

__global__ void wide(__int128* s, unsigned __int128* u, int n) {
  s[0] = s[1] * s[2] + s[3], s[4] = s[5] / s[6] - s[7] % s[8], s[9] = s[10] >> n, s[11] = s[12] << n;
  u[0] = u[1] * u[2] + u[3], u[4] = u[5] / u[6] - u[7] % u[8], u[9] = u[10] >> n,
  u[11] = u[12] > u[13] ? u[14] : ~u[15];
  reinterpret_cast<double*>(s)[32] = static_cast<double>(s[2]) + static_cast<double>(u[2]);
  u[16] = static_cast<unsigned __int128>(reinterpret_cast<double*>(s)[33]);
}

__global__ void bytes(signed char* c, unsigned char* u, short* s, unsigned short* v) {
  c[0] = c[1] * c[2] + (c[3] >> 1), u[0] = u[1] / u[2] + u[3], s[0] = s[1] * s[2] % s[3], v[0] = v[1] / v[2] - v[3];
  reinterpret_cast<char4*>(c)[1] = reinterpret_cast<char4*>(c)[2];
  reinterpret_cast<ushort4*>(v)[1] = reinterpret_cast<ushort4*>(v)[2];
  reinterpret_cast<short2*>(s)[3] = make_short2(c[5], u[5]);
}

struct Fields {
  unsigned a : 3, b : 7;
  int c : 9;
  unsigned long long d : 40;
};
__global__ void fields(Fields* f) { f[0].a = f[1].b, f[0].c = f[1].c + 1, f[0].d = f[1].d * 3; }

__global__ void carries(unsigned* u, unsigned long long* l) {
  asm("add.cc.u32 %0, %2, %3; addc.u32 %1, %2, 0;" : "=r"(u[0]), "=r"(u[1]) : "r"(u[2]), "r"(u[3]));
  asm("sub.cc.u32 %0, %2, %3; subc.cc.u32 %1, %2, 0; subc.u32 %1, %1, %1;"
      : "=r"(u[4]), "=r"(u[5])
      : "r"(u[6]), "r"(u[7]));
  asm("mad.lo.cc.u32 %0, %2, %3, %2; madc.hi.u32 %1, %2, %3, 0;" : "=r"(u[8]), "=r"(u[9]) : "r"(u[10]), "r"(u[11]));
  asm("add.cc.u64 %0, %1, %2; addc.u64 %0, %0, %0;" : "=l"(l[0]) : "l"(l[1]), "l"(l[2]));
  asm("bfe.u32 %0, %1, 3, 5; bfi.b32 %0, %1, %0, 2, 4;" : "+r"(u[12]) : "r"(u[13]));
  asm("bfind.u32 %0, %1;" : "=r"(u[14]) : "r"(u[15]));
  asm("lop3.b32 %0, %1, %2, %0, 0x96;" : "+r"(u[16]) : "r"(u[17]), "r"(u[18]));
}
