#include "scheduler/addresses.h"

#include <gtest/gtest.h>

namespace tide::sched {
namespace {

TEST(Addresses, one_that_is_silent_is_not_followed_to_until_others_must_know_better) {
  Addresses at("a:1,b:1,c:1");
  at.avoid("a:1");
  EXPECT_EQ(at.present(), "b:1");
  at.follow("a:1");  // b has not heard of it yet
  EXPECT_EQ(at.present(), "c:1");
  at.next();
  EXPECT_EQ(at.present(), "b:1");
  uint32_t looks = 0;
  for (; at.present() != "a:1"; ++looks) at.follow("a:1");
  EXPECT_GE(looks, kAvoidLooks - 3);
  EXPECT_LE(looks, kAvoidLooks);
}

TEST(Addresses, who_is_alone_is_asked_again) {
  Addresses at("a:1");
  at.avoid("a:1");
  EXPECT_EQ(at.present(), "a:1");
  at.next();
  EXPECT_EQ(at.present(), "a:1");
}

TEST(Addresses, another_leader_is_followed_at_once) {
  Addresses at("a:1,b:1,c:1");
  at.avoid("a:1");
  at.follow("d:1");
  EXPECT_EQ(at.present(), "d:1");
  at.avoid("d:1");
  EXPECT_EQ(at.present(), "c:1") << "the list goes on";
  at.follow("b:1");
  EXPECT_EQ(at.present(), "b:1");
}

}  // namespace
}  // namespace tide::sched
