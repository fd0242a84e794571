// Planned faults as text and as a plan; what the time model makes of work.

#include <gtest/gtest.h>

#include <algorithm>

#include "softgpu/sim/faults.h"
#include "softgpu/sim/time_model.h"

namespace softgpu::sim {
namespace {

std::vector<PlannedFault> parsed(const std::string& text) {
  std::vector<PlannedFault> out;
  std::string error;
  EXPECT_TRUE(parse_faults(text, &out, &error)) << text << ": " << error;
  return out;
}

std::string refusal(const std::string& text) {
  std::vector<PlannedFault> out;
  std::string error;
  EXPECT_FALSE(parse_faults(text, &out, &error)) << text;
  return error;
}

TEST(Faults, text_becomes_a_plan) {
  const auto faults = parsed("1/ecc:after=3,kernel=attend*;oom;0/slow:factor=2.5,times=0;flip:address=0x10,bit=3");
  ASSERT_EQ(faults.size(), 4u);
  EXPECT_EQ(faults[0].device, 1);
  EXPECT_EQ(faults[0].action, FaultAction::kEcc);
  EXPECT_EQ(faults[0].after, 3u);
  EXPECT_EQ(faults[0].kernel, "attend*");
  EXPECT_EQ(faults[0].text, "1/ecc:after=3,kernel=attend*");
  EXPECT_EQ(faults[1].device, -1);
  EXPECT_EQ(site_of(faults[1].action), FaultSite::kAllocation);
  EXPECT_EQ(faults[2].factor, 2.5);
  EXPECT_EQ(faults[2].times, 0u);
  EXPECT_EQ(faults[3].address, 16u);
  EXPECT_EQ(faults[3].bit, 3u);
}

TEST(Faults, what_cannot_be_read_is_named_with_its_place) {
  EXPECT_EQ(refusal("ecc;exx").substr(0, 34), "character 5: no fault is named 'ex");
  EXPECT_EQ(refusal("x/ecc").substr(0, 12), "character 1:");
  EXPECT_EQ(refusal("0/ecc:after"), "character 7: expected key=value");
  EXPECT_EQ(refusal("0/ecc:after=x"), "character 13: expected a number");
  EXPECT_EQ(refusal("ecc:often=1"), "character 5: no key is named 'often'");
  EXPECT_EQ(refusal("ecc:chance=1.5").substr(0, 13), "character 12:");
  EXPECT_EQ(refusal("oom:kernel=k"), "character 5: this fault has no kernel");
  EXPECT_FALSE(refusal("").empty());
  EXPECT_FALSE(refusal("ecc;").empty());
}

size_t happen(FaultPlan* plan, const Occasion& occasion) { return plan->due(occasion).size(); }

TEST(Faults, the_third_kernel_and_only_it) {
  FaultPlan plan;
  plan.add(parsed("ecc:after=3"));
  const Occasion kernel{FaultSite::kKernel, 0, "k", 0};
  EXPECT_EQ(happen(&plan, {FaultSite::kCopy, 0, {}, 0}), 0u);
  EXPECT_EQ(happen(&plan, kernel), 0u);
  EXPECT_EQ(happen(&plan, kernel), 0u);
  EXPECT_EQ(happen(&plan, kernel), 1u);
  EXPECT_EQ(happen(&plan, kernel), 0u);
  EXPECT_EQ(plan.list()[0].done, 1u);
}

TEST(Faults, device_name_and_time_choose) {
  FaultPlan plan;
  plan.add(parsed("1/hang:kernel=attend*,times=0,time=2"));
  EXPECT_EQ(happen(&plan, {FaultSite::kKernel, 1, "attend_forward", 1.0}), 0u);
  EXPECT_EQ(happen(&plan, {FaultSite::kKernel, 0, "attend_forward", 3.0}), 0u);
  EXPECT_EQ(happen(&plan, {FaultSite::kKernel, 1, "other", 3.0}), 0u);
  EXPECT_EQ(happen(&plan, {FaultSite::kKernel, 1, "attend_forward", 3.0}), 1u);
  EXPECT_EQ(happen(&plan, {FaultSite::kKernel, 1, "attend_forward", 3.0}), 1u);
  plan.clear(0);
  EXPECT_FALSE(plan.empty());
  plan.clear(1);
  EXPECT_TRUE(plan.empty());
}

TEST(Faults, chance_is_drawn_from_the_seed) {
  const auto pattern = [](const std::string& text) {
    FaultPlan plan;
    plan.add(parsed(text));
    std::string out;
    for (int i = 0; i < 200; ++i) out += happen(&plan, {FaultSite::kCopy, 0, {}, 0}) != 0 ? 'x' : '.';
    return out;
  };
  const std::string first = pattern("lostcopy:chance=0.25,seed=7,times=0");
  EXPECT_EQ(first, pattern("lostcopy:chance=0.25,seed=7,times=0"));
  EXPECT_NE(first, pattern("lostcopy:chance=0.25,seed=8,times=0"));
  const auto count = std::count(first.begin(), first.end(), 'x');
  EXPECT_GT(count, 25);
  EXPECT_LT(count, 80);
}

TEST(Time, settings_are_read) {
  TimeSettings settings;
  std::string error;
  EXPECT_TRUE(parse_time("scaled:2.5", &settings, &error));
  EXPECT_EQ(settings.mode, TimeMode::kScaled);
  EXPECT_EQ(settings.factor, 2.5);
  EXPECT_TRUE(parse_time("scaled", &settings, &error));
  EXPECT_EQ(settings.factor, 1);
  EXPECT_TRUE(parse_time("virtual", &settings, &error));
  EXPECT_TRUE(parse_time("off", &settings, &error));
  for (const char* wrong : {"", "fast", "scaled:", "scaled:0", "scaled:-1", "scaled:1x"}) {
    EXPECT_FALSE(parse_time(wrong, &settings, &error)) << wrong;
  }
}

CardSpeed card() {
  CardSpeed speed;
  speed.multiprocessors = 100;
  speed.instructions_per_ns = 400;
  speed.bytes_per_ns = 1000;
  speed.link_bytes_per_ns = 20;
  speed.launch_ns = 3000;
  speed.copy_ns = 6000;
  return speed;
}

TEST(Time, a_kernel_takes_what_is_scarcer) {
  const CardClock clock(card());
  EXPECT_EQ(clock.kernel_ns({400'000, 0, 100, 1}), 4000u);
  EXPECT_EQ(clock.kernel_ns({400'000, 5'000'000, 100, 1}), 8000u);
  EXPECT_EQ(clock.kernel_ns({400'000, 0, 10, 1}), 13000u);  // a tenth of the card
  EXPECT_EQ(clock.kernel_ns({400'000, 0, 100, 3}), 6000u);
  EXPECT_EQ(clock.copy_ns(20'000), 7000u);
}

TEST(Time, kernels_share_the_card_and_copies_the_link) {
  CardClock clock(card());
  StreamClock a, b, c, d;
  const KernelCost whole{400'000, 0, 100, 1};
  EXPECT_EQ(clock.run_kernel(&a, whole, 0), 4000u);
  EXPECT_EQ(clock.run_kernel(&a, whole, 0), 8000u);
  EXPECT_EQ(clock.run_kernel(&b, whole, 0), 12000u) << "the card is full";
  EXPECT_EQ(clock.run_copy(&c, 20'000, true, 0), 7000u) << "the link is free";
  EXPECT_EQ(clock.run_copy(&d, 20'000, true, 0), 14000u) << "the link is taken";
  EXPECT_EQ(clock.run_copy(&b, 20'000, false, 0), 19000u) << "behind the stream's own kernel";
  EXPECT_EQ(clock.run_kernel(&a, whole, 50'000), 54000u) << "not before it was asked for";
}

}  // namespace
}  // namespace softgpu::sim
