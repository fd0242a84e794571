// The client takes the faster of two carriers, whatever becomes of the other.

#include "transport/choice.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <utility>

namespace tide {
namespace {

// Time passes by being asked for, so that a busy machine changes nothing.
uint64_t test_clock() {
  static uint64_t now = 1;
  return now += 500;
}

struct Script {
  const char* name = "";
  uint64_t round_trip_ns = 0;
  uint64_t greeted_after_ns = 0;
  bool answers = true;
  const char* failure = nullptr;
  // What has become of it.
  int pings = 0;
  bool given_up = false, gone = false;
  uint64_t parcels = 0;
  std::function<void()> hang_up = {};  // as a descriptor of a device that is removed
  // Round trips that take something else, from the first on.
  std::vector<uint64_t> first_ns = {};
};

class FakeCarrier : public Carrier {
 public:
  explicit FakeCarrier(Script* script) : script_(script), begin_ns_(test_clock()) {
    EXPECT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    script_->hang_up = [this] { close(std::exchange(pipe_[1], -1)); };
  }
  ~FakeCarrier() override {
    for (const int fd : pipe_) close(fd);
    script_->gone = true;
  }
  const char* name() const override { return script_->name; }
  bool progress(Replica*) override { return false; }
  bool may_send() override { return true; }
  void send(const Parcel&) override {}
  bool idle() override { return true; }
  uint64_t applied() const override { return script_->parcels; }
  bool arm() override { return true; }
  int fd() const override { return pipe_[0]; }
  const char* failure() const override { return script_->failure; }
  bool may_ping() override { return test_clock() - begin_ns_ >= script_->greeted_after_ns; }
  void ping() override {
    ++script_->pings;
    asked_ns_ = test_clock();
  }
  uint64_t pongs() const override {
    const bool answered = script_->answers && asked_ns_ != 0 && test_clock() - asked_ns_ >= round_trip_ns();
    return uint64_t(script_->pings) - (answered || script_->pings == 0 ? 0 : 1);
  }
  void give_up() override { script_->given_up = true; }

 private:
  uint64_t round_trip_ns() const {
    const auto n = size_t(script_->pings - 1);
    return n < script_->first_ns.size() ? script_->first_ns[n] : script_->round_trip_ns;
  }

  Script* script_;
  uint64_t begin_ns_, asked_ns_ = 0;
  int pipe_[2] = {-1, -1};
};

std::unique_ptr<ChoiceCarrier> choice(Side own, Script* a, Script* b) {
  ChoiceCarrier::Carriers carriers;
  carriers.push_back(std::make_unique<FakeCarrier>(a));
  carriers.push_back(std::make_unique<FakeCarrier>(b));
  return std::make_unique<ChoiceCarrier>(own, std::move(carriers), test_clock);
}

// How long until something is chosen, in ms.
uint64_t drive(ChoiceCarrier& carrier, uint64_t most_ms = 2000) {
  const uint64_t begin = test_clock();
  while (!carrier.may_send() && test_clock() - begin < most_ms * 1'000'000) carrier.progress(nullptr);
  return (test_clock() - begin) / 1'000'000;
}

TEST(Choice, the_faster_is_taken_in_either_order) {
  for (const bool first : {true, false}) {
    Script fast{.name = "fast", .round_trip_ns = 20'000}, slow{.name = "slow", .round_trip_ns = 400'000};
    const auto carrier = choice(Side::kClient, first ? &fast : &slow, first ? &slow : &fast);
    EXPECT_STREQ(carrier->name(), "undecided");
    EXPECT_FALSE(carrier->may_send());
    drive(*carrier);
    EXPECT_STREQ(carrier->name(), "fast");
    EXPECT_TRUE(slow.given_up && slow.gone);
    EXPECT_FALSE(fast.given_up || fast.gone);
    EXPECT_GE(fast.pings, 8);
    EXPECT_GE(slow.pings, 8);
    EXPECT_LE(fast.pings, 16);
  }
}

// Neither one lucky round trip nor a few unlucky ones.
TEST(Choice, the_median_decides) {
  Script fast{.name = "fast", .round_trip_ns = 20'000}, slow{.name = "slow", .round_trip_ns = 400'000};
  slow.first_ns = {1'000, 1'000, 1'000};
  fast.first_ns = {900'000, 900'000, 900'000};
  const auto carrier = choice(Side::kClient, &slow, &fast);
  drive(*carrier);
  EXPECT_STREQ(carrier->name(), "fast");
}

TEST(Choice, a_long_way_is_measured_as_often_both_at_once) {
  Script near{.name = "near", .round_trip_ns = 20'000'000}, far{.name = "far", .round_trip_ns = 30'000'000};
  const auto carrier = choice(Side::kClient, &far, &near);
  EXPECT_LT(drive(*carrier), 350u);  // 9 of the longer ones
  EXPECT_STREQ(carrier->name(), "near");
  EXPECT_GE(near.pings, 8);
  EXPECT_GE(far.pings, 8);
}

TEST(Choice, it_takes_half_a_second_at_most) {
  Script near{.name = "near", .round_trip_ns = 150'000'000}, far{.name = "far", .round_trip_ns = 300'000'000};
  const auto carrier = choice(Side::kClient, &far, &near);
  const uint64_t ms = drive(*carrier);
  EXPECT_GE(ms, 450u);
  EXPECT_LT(ms, 600u);
  EXPECT_STREQ(carrier->name(), "near");
}

// Else every sleep would end at once.
TEST(Choice, a_descriptor_that_hangs_up_ends_its_carrier_and_says_so) {
  Script a{.name = "a", .round_trip_ns = 20'000, .greeted_after_ns = 60'000'000'000}, b{.name = "b"};
  const auto carrier = choice(Side::kClient, &a, &b);
  a.hang_up();
  carrier->arm();
  carrier->progress(nullptr);
  EXPECT_TRUE(a.gone);
  EXPECT_EQ(carrier->failure(), nullptr);
  drive(*carrier);
  EXPECT_STREQ(carrier->name(), "b");
  b.hang_up();
  carrier->arm();
  ASSERT_NE(carrier->failure(), nullptr);
  EXPECT_NE(std::string(carrier->failure()).find("descriptor"), std::string::npos);
}

TEST(Choice, who_is_silent_or_broken_is_not_taken) {
  Script good{.name = "good", .round_trip_ns = 100'000};
  for (Script bad :
       {Script{.name = "silent", .answers = false}, Script{.name = "late", .greeted_after_ns = 60'000'000'000},
        Script{.name = "broken", .failure = "broke"}}) {
    for (const bool first : {true, false}) {
      good.given_up = good.gone = false;
      const auto carrier = choice(Side::kClient, first ? &bad : &good, first ? &good : &bad);
      EXPECT_LT(drive(*carrier), 1000u) << bad.name;
      EXPECT_STREQ(carrier->name(), "good") << bad.name;
      EXPECT_EQ(carrier->failure(), nullptr);
      EXPECT_FALSE(good.gone);
    }
  }
}

TEST(Choice, when_all_are_broken_it_says_why) {
  Script a{.name = "a", .failure = "first"}, b{.name = "b", .failure = "second"};
  const auto carrier = choice(Side::kClient, &a, &b);
  carrier->progress(nullptr);
  EXPECT_STREQ(carrier->failure(), "second");
}

TEST(Choice, the_worker_takes_what_the_client_sends_over) {
  Script a{.name = "a"}, b{.name = "b"};
  const auto carrier = choice(Side::kWorker, &a, &b);
  drive(*carrier, 20);
  EXPECT_STREQ(carrier->name(), "undecided");
  EXPECT_EQ(a.pings + b.pings, 0);
  b.parcels = 1;
  carrier->progress(nullptr);
  EXPECT_STREQ(carrier->name(), "b");
  EXPECT_TRUE(a.given_up && a.gone);
}

TEST(Choice, what_one_side_lacks_is_left_out) {
  Script script{.name = "b"};
  const auto none = [](Region, int, auto, std::unique_ptr<Carrier>*) { return Outcome::fail("no device"); };
  const auto connect = [&](Region, int, const std::string& data, std::unique_ptr<Carrier>* carrier) {
    EXPECT_EQ(data, "there");
    *carrier = std::make_unique<FakeCarrier>(&script);
    return Outcome();
  };
  const auto listen = [&](Region, int, std::string* data, std::unique_ptr<Carrier>* carrier) {
    *data = "there";
    *carrier = std::make_unique<FakeCarrier>(&script);
    return Outcome();
  };
  const CarrierKind a{"a", none, none}, b{"b", connect, listen};
  std::string data;
  std::unique_ptr<Carrier> worker, client;
  EXPECT_TRUE(ChoiceCarrier::listen({a, b}, Region{}, -1, &data, &worker).ok());
  EXPECT_EQ(data, "b=there");
  EXPECT_TRUE(ChoiceCarrier::connect({a, b}, Region{}, -1, "a=x b=there", &client).ok());
  EXPECT_EQ(ChoiceCarrier::listen({a}, Region{}, -1, &data, &worker).message(), "no device");
  EXPECT_EQ(ChoiceCarrier::connect({a}, Region{}, -1, "a=x", &client).message(), "no device");
  for (const char* bad : {"", "c=there", "b", "=", " "}) {
    EXPECT_FALSE(ChoiceCarrier::connect({a, b}, Region{}, -1, bad, &client).ok()) << bad;
  }
}

}  // namespace
}  // namespace tide
