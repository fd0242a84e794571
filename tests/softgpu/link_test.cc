// Several units of PTX as one program.

#include "machine.h"

namespace softgpu {
namespace {

constexpr const char* kHeader = ".version 8.3\n.target sm_80\n.address_size 64\n";

std::shared_ptr<const Program> link(const std::vector<std::string>& bodies, LoadError* error) {
  std::vector<PtxUnit> units;
  for (const std::string& body : bodies) {
    units.push_back({"unit" + std::to_string(units.size()) + ".ptx", kHeader + body});
  }
  return Program::load(units, 80, error);
}

std::string error_of(const std::vector<std::string>& bodies) {
  LoadError error;
  EXPECT_EQ(link(bodies, &error), nullptr);
  return error.text;
}

// Runs kernel `k` on one lane with room for its results.
std::vector<uint32_t> run_linked(const std::vector<std::string>& bodies) {
  LoadError error;
  const auto program = link(bodies, &error);
  EXPECT_NE(program, nullptr) << error.text;
  if (program == nullptr) return {};
  Machine machine;
  const uint64_t out = machine.upload(std::vector<uint32_t>(8));
  const uint64_t image = (machine.allocate(8192) + 4095) / 4096 * 4096;
  program->fill_image(image, machine.host(image));
  std::string why;
  EXPECT_NE(program->kernel(0, &why), nullptr) << why;
  Launch launch;
  launch.program = program;
  launch.grid = launch.block = {1, 1, 1};
  launch.params = reinterpret_cast<const std::byte*>(&out);
  launch.image_address = image;
  launch.memory = &machine.space();
  BlockPool pool(1);
  EXPECT_TRUE(run(launch, pool).ok());
  return machine.download<uint32_t>(out, 8);
}

const std::string kCaller = R"(
.extern .func (.param .b32 r) helper (.param .b32 x);
.extern .global .align 4 .u32 shared_value;
.global .align 4 .u32 own = 5;
.visible .entry k (.param .u64 p)
{
  .reg .b32 %r<6>; .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [p];
  { .param .b32 a; st.param.b32 [a], 7; .param .b32 b;
    call.uni (b), helper, (a); ld.param.b32 %r1, [b]; }
  ld.global.u32 %r2, [shared_value];
  ld.global.u32 %r3, [own];
  st.global.u32 [%rd1], %r1;
  st.global.u32 [%rd1+4], %r2;
  st.global.u32 [%rd1+8], %r3;
  ret;
}
)";
// Has an `own` as well, and no header may be repeated for it.
const std::string kHelper = R"(
.global .align 4 .u32 own = 100;
.visible .global .align 4 .u32 shared_value = 42;
.visible .func (.param .b32 r) helper (.param .b32 x)
{
  .reg .b32 %r<4>;
  ld.param.b32 %r1, [x];
  ld.global.u32 %r2, [own];
  add.u32 %r3, %r1, %r2;
  st.param.b32 [r], %r3;
  ret;
}
)";

TEST(Link, functions_and_variables_of_another_unit_are_found) {
  const auto out = run_linked({kCaller, kHelper});
  ASSERT_EQ(out.size(), 8u);
  EXPECT_EQ(out[0], 107u);
  EXPECT_EQ(out[1], 42u);
  EXPECT_EQ(out[2], 5u);  // names without linkage stay apart
}

TEST(Link, the_order_of_units_does_not_matter) {
  const auto out = run_linked({kHelper, kCaller});
  ASSERT_EQ(out.size(), 8u);
  EXPECT_EQ(out[0], 107u);
  EXPECT_EQ(out[2], 5u);
}

TEST(Link, a_visible_definition_beats_a_weak_one_and_a_common_variable) {
  const std::string weak = R"(
.common .global .align 4 .u32 shared_value;
.weak .func (.param .b32 r) helper (.param .b32 x) { st.param.b32 [r], 1; ret; }
)";
  for (const auto& order : {std::vector{kCaller, weak, kHelper}, std::vector{kCaller, kHelper, weak}}) {
    const auto out = run_linked(order);
    ASSERT_EQ(out.size(), 8u);
    EXPECT_EQ(out[0], 107u);
    EXPECT_EQ(out[1], 42u);
  }
  const auto alone = run_linked({kCaller, weak});
  ASSERT_EQ(alone.size(), 8u);
  EXPECT_EQ(alone[0], 1u);
  EXPECT_EQ(alone[1], 0u);
}

TEST(Link, what_nobody_defines_is_named_with_the_unit_that_needs_it) {
  EXPECT_EQ(error_of({kCaller}), "Undefined reference to 'helper' in 'unit0.ptx'");
  const std::string half = ".visible .func (.param .b32 r) helper (.param .b32 x) { st.param.b32 [r], 1; ret; }\n";
  EXPECT_EQ(error_of({half, kCaller}), "Undefined reference to 'shared_value' in 'unit1.ptx'");
}

TEST(Link, what_no_kernel_reaches_need_not_be_defined) {
  const std::string unused = R"(
.extern .func nowhere ();
.func never () { call.uni nowhere; ret; }
)";
  EXPECT_EQ(run_linked({kCaller, kHelper, unused}).at(0), 107u);
}

TEST(Link, two_definitions_are_an_error_that_names_both_units) {
  EXPECT_EQ(error_of({kCaller, kHelper, kHelper}),
            "Multiple definition of 'shared_value' in 'unit2.ptx', first defined in 'unit1.ptx'");
  EXPECT_EQ(error_of({kCaller, ".visible .global .align 8 .u64 shared_value;\n"}),
            "Size doesn't match for 'shared_value' in 'unit1.ptx', first specified in 'unit0.ptx'");
  EXPECT_EQ(error_of({kCaller, ".visible .const .align 4 .u32 shared_value;\n"}),
            "Memory space doesn't match for 'shared_value' in 'unit1.ptx', first specified in 'unit0.ptx'");
}

TEST(Link, versions_and_targets_are_checked_with_their_line) {
  LoadError error;
  EXPECT_EQ(Program::load({{"", ".version 99.0\n.target sm_80\n"}}, 80, &error), nullptr);
  EXPECT_EQ(error.kind, LoadFailure::kVersion);
  EXPECT_NE(error.text.find("line 1: unsupported .version 99.0"), std::string::npos) << error.text;
  EXPECT_EQ(Program::load({{"", ".version 8.0\n.target sm_999\n"}}, 80, &error), nullptr);
  EXPECT_NE(error.text.find("line 2: unknown .target 'sm_999'"), std::string::npos) << error.text;
  EXPECT_EQ(Program::load({{"", ".version 8.0\n.target sm_90\n"}}, 80, &error), nullptr);
  EXPECT_EQ(error.kind, LoadFailure::kTarget);
  EXPECT_NE(Program::load({{"", ".version 8.0\n.target sm_80\n"}}, 80, &error), nullptr) << error.text;
}

TEST(Link, only_the_members_of_a_library_that_are_needed_are_pulled) {
  std::vector<PtxUnit> units = {{"main", kHeader + kCaller}};
  std::vector<PtxUnit> members = {{"other", std::string(kHeader) + ".visible .global .u32 other;\n"},
                                  {"helper", kHeader + kHelper}};
  Program::pull_members(&units, &members);
  ASSERT_EQ(units.size(), 2u);
  EXPECT_EQ(units[1].name, "helper");
}

}  // namespace
}  // namespace softgpu
