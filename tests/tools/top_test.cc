// `tide top` as text: it fits the terminal whatever there is to show, and moments as people write them.

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "tools/tide/times.h"
#include "tools/tide/top_view.h"

namespace tide::cli {
namespace {

class Top : public testing::Test {
 public:
  ~Top() noexcept override {}

 protected:
  void fill(uint32_t gpus, uint32_t jobs, uint32_t queues, const char* name = "train") {
    auto list = results_.initGpus(gpus);
    for (uint32_t i = 0; i < gpus; ++i) {
      list[i].setServer("node0");
      list[i].setGpu(i);
      list[i].setModel("NVIDIA H200");
      list[i].setMemoryBytes(141ull << 30);
      list[i].setUsable(true);
      list[i].setHeard(i != 1);
      list[i].setBusyPermille(503);
      list[i].setJobs(i == 0 ? "1" : "");
    }
    auto some = results_.initJobs(jobs);
    for (uint32_t i = 0; i < jobs; ++i) {
      some[i].setId(std::to_string(i + 1));
      some[i].setName(name);
      some[i].setQueue("research");
      some[i].setState(i == 0 ? control::JobState::RUNNING : control::JobState::QUEUED);
      some[i].setVgpus(2);
      some[i].setPart(1000);
      some[i].setSubmittedMs(1'000);
    }
    results_.setRunning(jobs == 0 ? 0 : 1);
    results_.setWaiting(jobs == 0 ? 0 : jobs - 1);
    results_.setNowMs(3'723'000);
    auto all = results_.initQueues(queues);
    for (uint32_t i = 0; i < queues; ++i) all[i].setName("q" + std::to_string(i));
  }
  std::string text(TopSize size) const {
    std::string all;
    for (const std::string& line : top_lines(results_.asReader(), size)) all += line + "\n";
    return all;
  }

  capnp::MallocMessageBuilder message_;
  control::Pool::TopResults::Builder results_ = message_.initRoot<control::Pool::TopResults>();
};

TEST_F(Top, it_fits_every_terminal) {
  fill(40, 300, 30);
  for (uint32_t columns = 1; columns <= 140; columns += 3) {
    for (uint32_t rows = 1; rows <= 60; ++rows) {
      const auto lines = top_lines(results_.asReader(), {.columns = columns, .rows = rows});
      EXPECT_LE(lines.size(), rows);
      for (const std::string& line : lines) EXPECT_LE(line.size(), columns) << line;
    }
  }
}

TEST_F(Top, what_is_cut_is_counted_and_all_is_there_without_a_height) {
  fill(40, 300, 3);
  const std::string small = text({.columns = 100, .rows = 30});
  EXPECT_NE(small.find(" more GPUs"), std::string::npos) << small;
  EXPECT_NE(small.find(" more jobs"), std::string::npos) << small;
  const std::string all = text({.columns = 100, .rows = 0});
  EXPECT_EQ(all.find(" more "), std::string::npos);
  EXPECT_NE(all.find("node0/39"), std::string::npos);
  EXPECT_NE(all.find("\n300 "), std::string::npos);
  EXPECT_NE(all.find("1h02m"), std::string::npos) << "it has waited";
}

TEST_F(Top, an_empty_pool_and_one_that_says_nothing) {
  fill(0, 0, 0);
  EXPECT_NE(text({}).find("GPUs 0: 0 held"), std::string::npos);
  fill(2, 1, 1);
  EXPECT_NE(text({.columns = 100, .rows = 24}).find("?/141.0"), std::string::npos)
      << text({.columns = 100, .rows = 24});
}

TEST_F(Top, names_do_not_speak_to_the_terminal) {
  fill(1, 1, 1, "\033[2Jevil\n");
  EXPECT_EQ(text({.columns = 120, .rows = 24}).find('\033'), std::string::npos);
  EXPECT_EQ(fitting("grün und blau", 4), "grün");
  EXPECT_EQ(fitting("", 0), "");
}

TEST(Times, are_ago_or_of_the_calendar) {
  setenv("TZ", "UTC", 1);
  tzset();
  constexpr uint64_t kNow = 1'700'000'000'000;
  EXPECT_EQ(parse_moment("7d", kNow), kNow - 7 * 86'400'000ull);
  EXPECT_EQ(parse_moment("90m", kNow), kNow - 5'400'000);
  EXPECT_EQ(parse_moment("2023-11-14", kNow), 1'699'920'000'000u);
  EXPECT_EQ(parse_moment("2023-11-14 22:13", kNow), 1'699'999'980'000u);
  EXPECT_EQ(parse_moment("2023-11-14T22:13:20", kNow), kNow);
  EXPECT_EQ(parse_moment("99999w", kNow), 1u) << "since ever";
  for (const char* wrong :
       {"", "d", "7", "-7d", "7 d", "7dd", "soon", "2023-13-01", "2023-02-31", "2023-11-14x", "99999999999999999999d"})
    EXPECT_FALSE(parse_moment(wrong, kNow).has_value()) << wrong;
  EXPECT_EQ(moment_text(kNow), "2023-11-14 22:13:20");
}

}  // namespace
}  // namespace tide::cli
