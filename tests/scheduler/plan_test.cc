#include "scheduler/plan.h"

#include <gtest/gtest.h>

namespace tide::sched {
namespace {

GpuId gpu(uint32_t index) { return {"s", index}; }

Present placed(const char* job, uint32_t vgpu, uint32_t at) {
  return {.job = job, .vgpu = vgpu, .at = gpu(at), .to = {}, .doing = Doing::kNothing};
}

Decision on(std::vector<uint32_t> gpus) {
  Decision decision{.running = true, .reason = {}, .places = {}};
  for (const uint32_t g : gpus) decision.places.push_back(gpu(g));
  return decision;
}

std::vector<std::string> text(const std::vector<Action>& actions) {
  std::vector<std::string> lines;
  for (const Action& action : actions) lines.push_back(to_text(action) + (action.ready ? "" : " (later)"));
  return lines;
}

using Lines = std::vector<std::string>;

TEST(Plan, does_nothing_when_all_is_as_it_should_be) {
  EXPECT_TRUE(plan({placed("A", 0, 0), placed("A", 1, 1)}, {{"A", on({0, 1})}}).empty());
}

TEST(Plan, places_all_vgpus_of_a_job_side_by_side) {
  const std::vector<Present> present = {{.job = "A", .vgpu = 0, .at = {}, .to = {}},
                                        {.job = "A", .vgpu = 1, .at = {}, .to = {}}};
  EXPECT_EQ(text(plan(present, {{"A", on({0, 1})}})), (Lines{"place A:0 on s/0", "place A:1 on s/1"}));
}

TEST(Plan, moves_one_vgpu_of_a_job_after_another) {
  const std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1), placed("A", 2, 2)};
  EXPECT_EQ(text(plan(present, {{"A", on({0, 0, 0})}})),
            (Lines{"move A:1 from s/1 to s/0", "move A:2 from s/2 to s/0 (later)"}));
}

TEST(Plan, waits_for_a_move_that_is_under_way) {
  std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1), placed("A", 2, 2)};
  present[1].doing = Doing::kMoving;
  present[1].to = gpu(0);
  EXPECT_EQ(text(plan(present, {{"A", on({0, 0, 0})}})), (Lines{"move A:2 from s/2 to s/0 (later)"}));
}

TEST(Plan, moves_different_jobs_side_by_side) {
  const std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1), placed("B", 0, 2), placed("B", 1, 3)};
  EXPECT_EQ(text(plan(present, {{"A", on({0, 0})}, {"B", on({2, 2})}})),
            (Lines{"move A:1 from s/1 to s/0", "move B:1 from s/3 to s/2"}));
}

TEST(Plan, gives_a_gpu_away_only_when_it_is_empty) {
  std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1), {.job = "B", .vgpu = 0, .at = {}, .to = {}}};
  const Assignment wanted = {{"A", on({0, 0})}, {"B", on({1})}};
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"move A:1 from s/1 to s/0", "place B:0 on s/1 (later)"}));
  present[1].doing = Doing::kMoving;
  present[1].to = gpu(0);
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"place B:0 on s/1 (later)"}));
  present[1] = placed("A", 1, 0);
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"place B:0 on s/1"}));
}

TEST(Plan, releases_what_has_ended_first) {
  std::vector<Present> present = {{.job = "B", .vgpu = 0, .at = {}, .to = {}}, placed("A", 0, 0)};
  present[1].leaving = true;
  EXPECT_EQ(text(plan(present, {{"B", on({0})}})), (Lines{"release A:0 from s/0", "place B:0 on s/0 (later)"}));
}

TEST(Plan, leaves_alone_what_waits_after_a_failure) {
  std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1)};
  present[1].held_back = true;
  EXPECT_TRUE(plan(present, {{"A", on({0, 0})}}).empty());
}

TEST(Plan, moves_first_where_there_is_room) {
  // A must leave 0 for 3, which B holds, and 1 for 2, which is free.
  const std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1), placed("B", 0, 3)};
  const auto lines = text(plan(present, {{"A", on({3, 2})}, {"B", on({4})}}));
  EXPECT_EQ(lines, (Lines{"move A:1 from s/1 to s/2", "move B:0 from s/3 to s/4", "move A:0 from s/0 to s/3 (later)"}));
}

Present part(const char* job, uint32_t thousandths, GpuId at, uint64_t memory_bytes = 0) {
  return {.job = job, .vgpu = 0, .at = at, .to = {}, .portion = {thousandths, memory_bytes}};
}

TEST(Plan, fills_a_gpu_with_parts_and_not_more) {
  std::vector<Present> present = {part("A", 500, gpu(0)), part("B", 500, {}), part("C", 250, {})};
  const Assignment wanted = {{"A", on({0})}, {"B", on({0})}, {"C", on({0})}};
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"place B:0 on s/0", "place C:0 on s/0 (later)"}));
  present[0].portion.part = 250;
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"place B:0 on s/0", "place C:0 on s/0"}));
  present[0].portion.part = kWholeGpu;
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"place B:0 on s/0 (later)", "place C:0 on s/0 (later)"}));
}

TEST(Plan, counts_a_part_that_is_still_there_or_comes) {
  std::vector<Present> present = {part("A", 500, gpu(0)), part("B", 500, {}), part("C", 500, {})};
  present[0].leaving = true;
  const Assignment wanted = {{"B", on({0})}, {"C", on({0})}};
  EXPECT_EQ(text(plan(present, wanted)),
            (Lines{"release A:0 from s/0", "place B:0 on s/0", "place C:0 on s/0 (later)"}));
  present[0] = part("A", 750, gpu(1));
  present[0].doing = Doing::kMoving;
  present[0].to = gpu(0);
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"place B:0 on s/0 (later)", "place C:0 on s/0 (later)"}));
}

TEST(Plan, gives_memory_away_once) {
  const std::vector<Present> present = {part("A", 250, gpu(0), 8), part("B", 250, {}, 8), part("C", 250, {}, 2)};
  const Assignment wanted = {{"A", on({0})}, {"B", on({0})}, {"C", on({0})}};
  EXPECT_EQ(text(plan(present, wanted, [](const GpuId&) { return 12; })),
            (Lines{"place C:0 on s/0", "place B:0 on s/0 (later)"}));
  EXPECT_EQ(text(plan(present, wanted, [](const GpuId&) { return 18; })),
            (Lines{"place B:0 on s/0", "place C:0 on s/0"}));
}

GpuId parked() { return {"s", kParked}; }

TEST(Plan, parks_though_others_are_parked_there_one_vgpu_after_another) {
  std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1), placed("B", 0, 2)};
  present[2].at = parked();
  const Decision away{.running = true, .reason = {}, .places = {parked(), parked()}};
  EXPECT_EQ(text(plan(present, {{"A", away}})),
            (Lines{"move A:0 from s/0 to s/parked", "move A:1 from s/1 to s/parked (later)"}));
}

TEST(Plan, brings_what_is_parked_to_a_gpu_when_it_is_empty) {
  std::vector<Present> present = {placed("A", 0, 0), placed("B", 0, 0)};
  present[0].at = parked();
  const Assignment wanted = {{"A", on({0})}, {"B", on({1})}};
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"move B:0 from s/0 to s/1", "move A:0 from s/parked to s/0 (later)"}));
  present[1] = placed("B", 0, 1);
  EXPECT_EQ(text(plan(present, wanted)), (Lines{"move A:0 from s/parked to s/0"}));
}

TEST(Plan, brings_what_is_parked_back_before_it_moves_what_may_wait_for_it) {
  std::vector<Present> present = {placed("A", 0, 0), placed("A", 1, 1)};
  present[1].at = parked();
  EXPECT_EQ(text(plan(present, {{"A", on({2, 1})}})),
            (Lines{"move A:1 from s/parked to s/1", "move A:0 from s/0 to s/2 (later)"}));
}

TEST(Plan, leaves_who_waits_where_it_is_parked_and_releases_it_at_its_end) {
  std::vector<Present> present = {placed("A", 0, 0)};
  present[0].at = parked();
  EXPECT_TRUE(plan(present, {{"A", {.running = false, .reason = "waits", .places = {parked()}}}}).empty());
  present[0].leaving = true;
  EXPECT_EQ(text(plan(present, {})), (Lines{"release A:0 from s/parked"}));
}

}  // namespace
}  // namespace tide::sched
