// Damaged images: whatever becomes of a program on its way, loading it ends with an answer.

#include <lz4.h>
#include <zstd.h>

#include "machine.h"
#include "softgpu/fatbin/fatbin.h"
#include "softgpu/fatbin/object.h"

namespace softgpu {
namespace {

constexpr int kRounds = 1500;

// A small generator, so that every run tries the same damages.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t below(uint64_t limit) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return (state_ >> 8) % limit;
  }

 private:
  uint64_t state_;
};

const std::string kProgram = R"(.version 8.3
.target sm_80
.address_size 64
.extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
.visible .global .align 8 .u64 table[2] = {generic(other), twice};
.global .align 4 .b8 other[12] = {1, 2, 3, 0xFF(other), -4, 5};
.const .align 4 .f32 factor = 0f3F800000;
.extern .shared .align 16 .b8 dynamic[];
.func (.param .b32 r) twice (.param .b32 x, .param .align 4 .b8 s[8])
{
  .reg .b32 %r<4>;
  .reg .pred %p<2>;
  .local .align 8 .b8 depot[16];
  ld.param.u32 %r1, [x];
  setp.eq.u32 %p1, %r1, 0;
  @%p1 bra $end;
  { .param .b32 a; .param .align 4 .b8 t[8]; .param .b32 b;
    st.param.b32 [a], %r1; st.param.b32 [t+4], 7;
    call.uni (b), twice, (a, t);
    ld.param.b32 %r2, [b]; }
$end:
  st.param.b32 [r], %r1;
  ret;
}
.visible .entry work (.param .u64 .ptr .global .align 4 p, .param .u32 n)
.maxntid 128, 1, 1
{
  .reg .b64 %rd<6>;
  .reg .b32 %r<10>;
  .reg .f32 %f<4>;
  .reg .pred %p<3>;
  .shared .align 4 .b8 tile[256];
  ld.param.u64 %rd1, [p];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r1, %tid.x;
  mad.wide.u32 %rd3, %r1, 4, %rd2;
  ld.global.v2.u32 {%r2, %r3}, [%rd3+8];
  shfl.sync.bfly.b32 %r4|%p1, %r2, 1, 31, -1;
  @!%p1 add.s32 %r4, %r4, %r3;
  ld.const.f32 %f1, [factor];
  fma.rn.ftz.f32 %f2, %f1, 0f40000000, %f1;
  ld.global.u64 %rd4, [table+8];
  { .param .b32 a; .param .align 4 .b8 t[8]; .param .b32 b;
    st.param.b32 [a], %r4;
    prototype: .callprototype (.param .b32 _) _ (.param .b32 _, .param .align 4 .b8 _[8]);
    call (b), %rd4, (a, t), prototype;
    ld.param.b32 %r5, [b]; }
  targets: .branchtargets here, there;
  and.b32 %r6, %r5, 1;
  brx.idx %r6, targets;
here:
  bar.sync 0;
there:
  atom.global.add.u32 %r7, [%rd3], %r5;
  st.shared.u32 [tile+4], %r7;
  ret;
}
)";

std::string damaged(const std::string& text, Dice* dice) {
  static constexpr const char* kPieces[] = {"{",
                                            "}",
                                            "(",
                                            ")",
                                            ";",
                                            ".b8 x[99999999999];",
                                            "%r1",
                                            "-",
                                            "<9999999999>",
                                            "\"",
                                            "0x",
                                            ".reg",
                                            "ret;",
                                            "!!!!",
                                            "[",
                                            ",",
                                            ".align 3",
                                            "call",
                                            "{{{{",
                                            ".shared .b8 s[1073741824];",
                                            "1e999",
                                            "/*",
                                            "//",
                                            "\0",
                                            ".extern",
                                            "@"};
  std::string out = text;
  for (uint64_t i = dice->below(3) + 1; i > 0 && !out.empty(); --i) {
    const uint64_t at = dice->below(out.size());
    switch (dice->below(6)) {
      case 0:
        out[at] = static_cast<char>(dice->below(256));
        break;
      case 1:
        out.erase(at, dice->below(40) + 1);
        break;
      case 2:
        out.insert(at, kPieces[dice->below(std::size(kPieces))]);
        break;
      case 3:
        out.resize(at);
        break;
      case 4:
        out.insert(at, out.substr(dice->below(out.size()), dice->below(60)));
        break;
      default:
        out[at] = static_cast<char>(out[at] ^ (1 << dice->below(8)));
    }
  }
  return out;
}

void load_and_lower(const std::string& text) {
  LoadError error;
  const auto program = Program::load({{"", text}}, 80, &error);
  if (program == nullptr) {
    EXPECT_FALSE(error.text.empty());
    return;
  }
  for (uint32_t k = 0; k < program->kernels().size(); ++k) {
    std::string why;
    if (program->kernel(k, &why) == nullptr) {
      EXPECT_FALSE(why.empty());
    }
  }
}

TEST(Mutation, the_program_itself_loads) {
  LoadError error;
  const auto program = Program::load({{"", kProgram}}, 80, &error);
  ASSERT_NE(program, nullptr) << error.text;
  std::string why;
  EXPECT_NE(program->kernel(0, &why), nullptr) << why;
}

TEST(Mutation, damaged_ptx_is_refused_or_loads) {
  for (uint64_t seed = 1; seed <= kRounds; ++seed) {
    Dice dice(seed);
    load_and_lower(damaged(kProgram, &dice));
  }
}

TEST(Mutation, deep_nesting_is_an_error) {
  for (const char* piece : {"!", "{", "(", "["}) {
    std::string deep;
    for (int i = 0; i < 200'000; ++i) deep += piece;
    load_and_lower(".version 8.0\n.target sm_80\n.visible .entry k() { .reg .b32 %r<2>; mov.u32 %r1, " + deep +
                   "; }\n");
  }
}

template <typename T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string entry(const std::string& text, bool packed) {
  std::string payload = text;
  if (packed) {
    payload.resize(ZSTD_compressBound(text.size()));
    payload.resize(ZSTD_compress(payload.data(), payload.size(), text.data(), text.size(), 3));
  }
  const auto compressed = static_cast<uint32_t>(payload.size());
  payload.resize((payload.size() + 8) / 8 * 8);
  std::string out;
  put<uint16_t>(&out, 1);
  put<uint16_t>(&out, 0x101);
  put<uint32_t>(&out, 64);
  put<uint64_t>(&out, payload.size());
  put<uint32_t>(&out, packed ? compressed : 0);
  put<uint32_t>(&out, 0);
  put<uint32_t>(&out, 0x90000);
  put<uint32_t>(&out, 80);
  put<uint64_t>(&out, 64);
  put<uint64_t>(&out, packed ? 0x8000 : 0);
  put<uint64_t>(&out, 0);
  put<uint64_t>(&out, text.size());
  return out + payload;
}

std::string fatbin() {
  const std::string entries = entry(kProgram, false) + entry(kProgram, true);
  std::string out;
  put<uint32_t>(&out, 0xBA55ED50);
  put<uint16_t>(&out, 1);
  put<uint16_t>(&out, 16);
  put<uint64_t>(&out, entries.size());
  return out + entries;
}

TEST(Mutation, damaged_images_of_known_length_are_not_read_past_their_end) {
  const std::string whole[] = {fatbin(), write_linked_image({"a", "b"}, {kProgram, kProgram}, 80)};
  for (const std::string& image : whole) {
    ASSERT_EQ(read_image(std::string_view(image), 80).status, ImageStatus::kOk);
    for (uint64_t seed = 1; seed <= kRounds; ++seed) {
      Dice dice(seed);
      const std::string bad = damaged(image, &dice);
      // A copy of exactly its size, so that AddressSanitizer sees a byte too many.
      const std::vector<char> exact(bad.begin(), bad.end());
      const ImageText text = read_image(std::string_view(exact.data(), exact.size()), 80);
      EXPECT_EQ(text.status == ImageStatus::kOk, text.error.empty()) << seed;
    }
  }
}

TEST(Mutation, lengths_that_lead_out_of_the_memory_are_found) {
  std::string image = fatbin();
  const uint64_t enormous = uint64_t{1} << 45;
  image.replace(8, 8, reinterpret_cast<const char*>(&enormous), 8);
  EXPECT_EQ(read_image(image.data(), 80).status, ImageStatus::kInvalid);
  std::string elf = write_linked_image({"a"}, {kProgram}, 80);
  elf.replace(40, 8, reinterpret_cast<const char*>(&enormous), 8);  // e_shoff
  EXPECT_EQ(read_image(elf.data(), 80).status, ImageStatus::kInvalid);
}

TEST(Mutation, what_a_link_returns_is_read_back) {
  const std::string image = write_linked_image({"a.ptx", ""}, {kProgram, "// second"}, 80);
  const ImageText text = read_image(image.data(), 80);
  ASSERT_EQ(text.ptx.size(), 2u);
  EXPECT_EQ(text.ptx[0], kProgram);
  EXPECT_EQ(text.ptx[1], "// second");
  EXPECT_EQ(text.names[0], "a.ptx");
}

std::string member(const std::string& name, const std::string& bytes) {
  char header[61];
  std::snprintf(header, sizeof(header), "%-16s%-12s%-6s%-6s%-8s%-10zu`\n", name.c_str(), "0", "0", "0", "644",
                bytes.size());
  return header + bytes + (bytes.size() % 2 != 0 ? "\n" : "");
}

TEST(Mutation, archives_give_their_members_or_nothing) {
  const std::string archive =
      "!<arch>\n" + member("//", "a_name_that_is_rather_long.o/\n") + member("/0", "first") + member("b.o/", "second!");
  std::vector<Member> members;
  ASSERT_TRUE(read_archive(archive, &members));
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].name, "a_name_that_is_rather_long.o");
  EXPECT_EQ(members[1].bytes, "second!");
  for (uint64_t seed = 1; seed <= kRounds; ++seed) {
    Dice dice(seed);
    const std::string bad = damaged(archive, &dice);
    const std::vector<char> exact(bad.begin(), bad.end());
    members.clear();
    if (!read_archive({exact.data(), exact.size()}, &members)) continue;
    for (const Member& m : members) EXPECT_LE(m.bytes.size(), exact.size());
  }
}

}  // namespace
}  // namespace softgpu
