// Accounts, the outbox and the history, each alone and together: what was held is counted once, whatever fails.

#include "scheduler/history.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>

#include "base/log.h"
#include "scheduler/accounts.h"
#include "scheduler/books.h"
#include "scheduler/kv_memory.h"
#include "scheduler/report.h"
#include "scheduler/store.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kHour = 3'600'000;
constexpr uint64_t kBegin = 1'700'000'000'000 / kHour * kHour;  // a full hour

// A pool of two servers with four GPUs each, a clock that is moved by hand, and what is noted.
class Counting : public testing::Test {
 protected:
  Counting() {
    for (const char* name : {"a", "b"}) {
      Server& server = ledger_.servers[name];
      server.name = name;
      server.online = true;
      for (uint32_t i = 0; i < 4; ++i) {
        Gpu& gpu = server.gpus.emplace_back();
        gpu.index = i;
        gpu.name = "GPU H200";
      }
    }
  }
  Job& job(uint64_t number, uint32_t vgpus, uint32_t part = kWholeGpu) {
    Job& job = ledger_.jobs[number];
    job.record.number = number;
    job.record.gpus = vgpus;
    job.record.part = part;
    job.record.queue = "red";
    job.record.phase = Phase::kRunning;
    job.vgpus.resize(vgpus);
    return job;
  }
  static void put(Job* job, const std::vector<GpuId>& places) {
    for (size_t v = 0; v < places.size(); ++v) {
      if (job->vgpus[v].at != places[v]) job->vgpus[v].epoch = ++job->vgpus[v].last_epoch;
      job->vgpus[v].at = places[v];
    }
    job->started = true;
    job->record.started_ms = kBegin;
  }
  void pass(uint64_t ms) {
    now_.clock_ns += ms * kMs;
    now_.wall_ms += ms;
    accounts_.count(ledger_, now_);
  }
  void save(Job* job) { accounts_.close(ledger_, job, now_); }
  double held(uint64_t job) const { return sum(job, &Event::held_ms); }
  double used(uint64_t job) const { return sum(job, &Event::used_ms); }
  double sum(uint64_t job, double Event::*what) const {
    double all = 0;
    for (const Event& event : noted_) all += event.kind == EventKind::kHeld && event.job == job ? event.*what : 0;
    return all;
  }
  std::string kinds(uint64_t job) const {
    std::string text;
    for (const Event& event : noted_) {
      if (event.job != job || event.kind == EventKind::kHeld) continue;
      text += (text.empty() ? "" : " ") + std::string(to_text(event.kind));
      if (event.before != 0) text += " " + std::to_string(event.before) + "-" + std::to_string(event.after);
    }
    return text;
  }

  Ledger ledger_;
  Moment now_{.clock_ns = 1'000'000 * kMs, .wall_ms = kBegin, .boot = 7};
  std::vector<Event> noted_;
  Accounts accounts_{[this](Event event) { noted_.push_back(std::move(event)); }};
};

TEST_F(Counting, a_job_holds_each_gpu_once_however_many_of_its_vgpus_are_there) {
  Job& wide = job(1, 4);
  put(&wide, {{"a", 0}, {"a", 1}, {"a", 2}, {"a", 3}});
  pass(0);
  pass(10'000);
  put(&wide, {{"a", 0}, {"a", 1}, {"a", 0}, {"a", 1}});  // shrunk to two
  save(&wide);
  pass(10'000);
  save(&wide);
  EXPECT_NEAR(held(1), 40'000 + 20'000, 1);
  EXPECT_EQ(kinds(1), "started shrank 4-2");
}

TEST_F(Counting, fractions_count_as_fractions_and_suspended_time_as_nothing) {
  Job& part = job(1, 1, 250);
  put(&part, {{"a", 0}});
  pass(0);
  pass(8'000);
  put(&part, {{"a", kParked}});
  part.record.suspended = true;
  save(&part);
  pass(100'000);
  save(&part);
  EXPECT_NEAR(held(1), 2'000, 1);
  part.record.suspended = false;
  put(&part, {{"b", 3}});
  save(&part);
  pass(4'000);
  part.record.phase = Phase::kEnded;
  save(&part);
  EXPECT_NEAR(held(1), 3'000, 1);
  EXPECT_EQ(kinds(1), "started suspended resumed ended");
}

TEST_F(Counting, a_clock_that_jumps_changes_no_duration) {
  Job& one = job(1, 1);
  put(&one, {{"a", 0}});
  pass(0);
  pass(5'000);
  now_.wall_ms += 86'400'000;
  pass(5'000);
  now_.wall_ms -= 2 * 86'400'000;
  pass(5'000);
  save(&one);
  EXPECT_NEAR(held(1), 15'000, 1);
}

TEST_F(Counting, who_takes_over_goes_on_where_the_record_says) {
  Job& one = job(1, 2);
  put(&one, {{"a", 0}, {"a", 1}});
  pass(0);
  pass(30'000);
  save(&one);
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 1, .used_ms = 500}});
  pass(7'000);  // never written
  to_record(&one);
  const JobRecord record = one.record;
  JobRecord copy;
  ASSERT_TRUE(from_bytes(to_bytes(record), &copy).ok());
  Accounts next([this](Event event) { noted_.push_back(std::move(event)); });
  one = from_record(copy);
  now_.clock_ns += 3'000 * kMs;
  now_.wall_ms += 3'000;
  next.take_over(one, now_);
  next.count(ledger_, now_);
  next.heard({{.job = "1", .vgpu = 0, .epoch = 1, .used_ms = 900}});
  next.close(ledger_, &one, now_);
  EXPECT_NEAR(held(1), 2 * 40'000, 1);
  EXPECT_NEAR(used(1), 900, 0.1);
  EXPECT_EQ(kinds(1), "started");
}

TEST_F(Counting, on_another_machine_the_wall_clocks_count_and_not_for_longer_than_an_hour) {
  Job& one = job(1, 1);
  put(&one, {{"a", 0}});
  pass(0);
  pass(2'000);
  save(&one);
  const AccountRecord written = one.record.account;
  for (const auto& [gone_ms, expected] :
       {std::pair<int64_t, double>(5'000, 5'000), {-5'000, 0}, {100 * int64_t(kHour), double(kHour)}}) {
    noted_.clear();
    Accounts next([this](Event event) { noted_.push_back(std::move(event)); });
    one.record.account = written;
    const Moment there{.clock_ns = 5 * kMs, .wall_ms = uint64_t(int64_t(written.wall_ms) + gone_ms), .boot = 8};
    next.take_over(one, there);
    next.close(ledger_, &one, there);
    EXPECT_NEAR(held(1), expected, 1);
  }
}

TEST_F(Counting, what_was_used_follows_counters_over_moves_and_new_agents) {
  Job& one = job(1, 1);
  put(&one, {{"a", 0}});
  pass(0);
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 1, .used_ms = 100}});
  pass(1'000);
  put(&one, {{"b", 0}});
  pass(1'000);
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 2, .used_ms = 50}});
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 1, .used_ms = 130}});  // its last on the old one
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 2, .used_ms = 20}});   // another agent there
  accounts_.heard({{.job = "1", .vgpu = 9, .epoch = 2, .used_ms = 20}});   // nonsense
  accounts_.heard({{.job = "77", .vgpu = 0, .epoch = 2, .used_ms = 20}});
  pass(1'000);
  save(&one);
  EXPECT_NEAR(used(1), 100 + 30 + 50 + 20, 0.1);
  EXPECT_NEAR(held(1), 2'000 + 1'000, 1);
}

TEST_F(Counting, what_an_ended_job_used_may_be_heard_later) {
  Job& one = job(1, 1);
  put(&one, {{"a", 0}});
  pass(0);
  pass(2'000);
  one.record.phase = Phase::kEnded;
  save(&one);
  ledger_.jobs.erase(1);
  pass(200);
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 1, .used_ms = 1'500}});
  pass(200);
  EXPECT_NEAR(used(1), 1'500, 0.1);
  EXPECT_NEAR(held(1), 2'000, 1);
  pass(2 * kKeepEndedMs);
  accounts_.heard({{.job = "1", .vgpu = 0, .epoch = 1, .used_ms = 1'900}});
  pass(200);
  EXPECT_NEAR(used(1), 1'500, 0.1) << "it is forgotten";
}

TEST_F(Counting, the_pool_counts_its_gpus_and_open_amounts_are_those_that_were_not_noted) {
  Job& one = job(1, 1);
  put(&one, {{"a", 0}});
  pass(0);
  pass(10'000);
  double capacity = 0, open = 0;
  for (const Event& event : accounts_.open(now_))
    (event.kind == EventKind::kCapacity ? capacity : open) += event.held_ms;
  EXPECT_NEAR(capacity, 8 * 10'000, 1);
  EXPECT_NEAR(open, 10'000, 1);
  save(&one);
  for (const Event& event : accounts_.open(now_)) EXPECT_EQ(event.kind, EventKind::kCapacity);
  EXPECT_FALSE(accounts_.due(one, now_.clock_ns));
  pass(kCountMs);
  EXPECT_TRUE(accounts_.due(one, now_.clock_ns));
}

TEST_F(Counting, marks_no_job_as_changed) {
  Job& one = job(1, 1);
  put(&one, {{"a", 0}});
  Store store(std::make_unique<MemoryKv>());
  Books books(ledger_, store);
  books.keep_in("/no/such/history");
  ASSERT_TRUE(books.begin().ok());
  (void)ledger_.jobs.take_changes();
  books.count();
  const auto changes = ledger_.jobs.take_changes();
  EXPECT_FALSE(changes.all);
  EXPECT_TRUE(changes.keys.empty());
}

// A store in memory that fails when it is told to, with an outbox.
class Carrying : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-history-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    directory_ = path;
    auto kv = std::make_unique<MemoryKv>();
    kv_ = kv.get();
    store_ = std::make_unique<Store>(std::move(kv));
    again();
    open();
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  // As another scheduler on the same store.
  void again() {
    outbox_ = std::make_unique<Outbox>(*kv_, "/tide/");
    ASSERT_TRUE(store_->tell(outbox_.get()).ok());
  }
  void open() {
    history_.reset();
    const Outcome opened = History::open(path(), &history_);
    ASSERT_TRUE(opened.ok()) << opened.message();
  }
  std::string path() const { return directory_ + "/history.sqlite"; }
  JobRecord add() {
    JobRecord job;
    job.queue = "red";
    job.submitted_ms = kBegin;
    EXPECT_TRUE(store_->add(&job).ok());
    return job;
  }
  void hold(uint64_t job, double ms, uint64_t from_ms = kBegin) {
    outbox_->note({.kind = EventKind::kHeld,
                   .job = job,
                   .at_ms = from_ms + uint64_t(ms),
                   .queue = "red",
                   .gpu = "a/0",
                   .model = "GPU H200",
                   .from_ms = from_ms,
                   .held_ms = ms});
  }
  // Carried as the scheduler does; `forgets` false: it falls before it can say so.
  void carry(bool forgets = true) {
    std::vector<Batch> batches;
    ASSERT_TRUE(outbox_->read(&batches).ok());
    const Outcome taken = history_->take(outbox_->name(), batches);
    ASSERT_TRUE(taken.ok()) << taken.message();
    if (forgets && !batches.empty()) {
      ASSERT_TRUE(store_->carried(batches.back().number).ok());
    }
  }
  HistoryReport all() {
    HistoryReport report;
    const Outcome read = read_report(path(), {.since_ms = 1, .until_ms = kBegin + 1000 * kHour}, &report);
    EXPECT_TRUE(read.ok()) << read.message();
    return report;
  }
  double held() {
    double sum = 0;
    for (const JobUse& use : all().uses) sum += use.held_ms;
    return sum;
  }

  std::string directory_;
  MemoryKv* kv_ = nullptr;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Outbox> outbox_;
  std::unique_ptr<History> history_;
};

TEST_F(Carrying, events_go_with_the_record_and_are_carried_in_order_and_once) {
  JobRecord job = add();
  hold(job.number, 1'000);
  hold(99, 5'000);  // of another job: not with this record
  ASSERT_TRUE(store_->update(job).ok());
  EXPECT_EQ(outbox_->waiting(), 2u);
  EXPECT_TRUE(outbox_->waits_for(99));
  carry(false);
  carry(false);
  again();
  carry();
  EXPECT_EQ(outbox_->waiting(), 0u);
  EXPECT_EQ(held(), 1'000);
  hold(job.number, 500);
  ASSERT_TRUE(store_->update(job).ok());
  open();
  carry();
  EXPECT_EQ(held(), 1'500);
  uint64_t last = 0;
  ASSERT_TRUE(history_->last(outbox_->name(), &last).ok());
  EXPECT_EQ(last, 3u);
}

TEST_F(Carrying, a_write_of_which_nobody_knows_is_counted_once) {
  JobRecord job = add();
  for (const bool done : {true, false}) {
    hold(job.number, 1'000);
    kv_->fail(true, done);
    EXPECT_FALSE(store_->update(job).ok());
    EXPECT_FALSE(store_->update(job).ok());
    kv_->fail(false);
    hold(job.number, 10);
    ASSERT_TRUE(store_->update(job).ok());
  }
  carry();
  EXPECT_EQ(held(), 2'020);
  EXPECT_TRUE(all().gaps.empty());
}

TEST_F(Carrying, a_submission_of_which_nobody_knows_is_there_once) {
  JobRecord job;
  kv_->fail(true, true);
  EXPECT_FALSE(store_->add(&job).ok());
  kv_->fail(false);
  ASSERT_TRUE(store_->add(&job).ok());
  JobRecord other = add();
  hold(other.number, 1'000);
  ASSERT_TRUE(store_->update(other).ok());
  carry();
  EXPECT_EQ(held(), 1'000);
}

TEST_F(Carrying, what_belongs_to_no_record_is_written_alone) {
  const JobRecord job = add();
  carry();
  outbox_->note(
      {.kind = EventKind::kCapacity, .at_ms = kBegin + 1'000, .model = "m", .from_ms = kBegin, .held_ms = 4'000});
  hold(99, 300);          // its job is gone
  hold(job.number, 700);  // has a record, with which it goes
  ASSERT_TRUE(store_->write_outbox([&](uint64_t number) { return number == job.number; }).ok());
  ASSERT_TRUE(store_->write_outbox([&](uint64_t number) { return number == job.number; }).ok());
  EXPECT_EQ(outbox_->waiting(), 1u);
  carry();
  EXPECT_EQ(held(), 300);
  EXPECT_EQ(all().capacity_ms, 4'000);
}

TEST_F(Carrying, many_events_with_long_texts_go_in_batches_that_a_store_takes) {
  JobRecord job = add();
  for (int i = 0; i < 3'000; ++i) {
    outbox_->note({.kind = EventKind::kEnded, .job = job.number, .at_ms = kBegin, .text = std::string(1'000, 'x')});
  }
  while (outbox_->waits_for(job.number)) {
    const uint64_t before = outbox_->waiting();
    ASSERT_TRUE(store_->update(job).ok());
    ASSERT_EQ(outbox_->waiting(), before + 1);
  }
  std::vector<Batch> batches;
  ASSERT_TRUE(outbox_->read(&batches).ok());
  size_t events = 0;
  for (const Batch& batch : batches) {
    EXPECT_LE(to_bytes(batch.events).size(), kOutboxBytesMax + 2'000);
    events += batch.events.size();
  }
  EXPECT_EQ(events, 3'001u);
}

TEST_F(Carrying, a_text_is_cut_between_characters) {
  JobRecord job = add();
  std::string text = "x";
  for (int i = 0; i < 200; ++i) text += "\u00e4";
  outbox_->note({.kind = EventKind::kEnded, .job = job.number, .at_ms = kBegin, .text = text});
  ASSERT_TRUE(store_->update(job).ok());
  std::vector<Batch> batches;
  ASSERT_TRUE(outbox_->read(&batches).ok());
  EXPECT_EQ(batches.back().events.at(0).text, text.substr(0, 255));
}

TEST_F(Carrying, a_deposed_leader_writes_no_events) {
  const JobRecord job = add();
  store_->write_only_in("/tide/leader", Store::kNoTerm);
  hold(job.number, 700);
  EXPECT_FALSE(store_->update(job).ok());
  EXPECT_FALSE(store_->write_outbox([](uint64_t) { return false; }).ok());
  EXPECT_EQ(outbox_->waiting(), 1u);
  EXPECT_FALSE(store_->carried(1).ok());
  again();
  EXPECT_EQ(outbox_->waiting(), 1u);
}

TEST_F(Carrying, another_store_has_other_numbers) {
  JobRecord job = add();
  hold(job.number, 1'000);
  ASSERT_TRUE(store_->update(job).ok());
  carry();
  auto kv = std::make_unique<MemoryKv>();
  kv_ = kv.get();
  outbox_.reset();
  store_ = std::make_unique<Store>(std::move(kv));
  again();
  job = add();
  EXPECT_EQ(job.number, 1u);
  hold(job.number, 70);
  ASSERT_TRUE(store_->update(job).ok());
  carry();
  EXPECT_EQ(held(), 1'070);
  EXPECT_EQ(make_report(all(), ReportBy::kJob, {}).lines.size(), 2u);
}

TEST_F(Carrying, a_full_outbox_loses_the_oldest_and_the_report_knows) {
  JobRecord job = add();
  carry();
  outbox_->note({.kind = EventKind::kStarted, .job = job.number, .at_ms = kBegin});
  ASSERT_TRUE(store_->update(job).ok());
  carry();
  // Batches that lie there are told by their numbers alone.
  const uint64_t next = 3;
  Committed committed;
  const auto key = [](uint64_t number) { return format("/tide/outbox/batch/%020lu", (unsigned long)number); };
  hold(job.number, 1);
  ASSERT_TRUE(store_->update(job).ok());
  Transaction last;
  last.changes.push_back({.key = key(next + kOutboxBatchesMax - 1), .value = to_bytes(std::vector<Event>())});
  ASSERT_TRUE(kv_->commit(last, &committed).ok());
  again();
  EXPECT_EQ(outbox_->waiting(), kOutboxBatchesMax);
  hold(job.number, 10);
  ASSERT_TRUE(store_->update(job).ok());
  EXPECT_EQ(outbox_->waiting(), kOutboxBatchesMax);
  EXPECT_EQ(outbox_->displaced(), 1u);
  carry();
  EXPECT_EQ(held(), 10) << "the oldest was displaced";
  EXPECT_FALSE(all().gaps.empty());
  EXPECT_GE(all().gaps[0].batches, 1u);
}

TEST_F(Carrying, garbage_and_a_newer_file_are_refused_and_nothing_is_taken) {
  history_.reset();
  std::ofstream(path()) << std::string(8192, 'x');
  std::unique_ptr<History> opened;
  Outcome outcome = History::open(path(), &opened);
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(outcome.message().find("damaged"), std::string::npos) << outcome.message();
  std::filesystem::remove(path());
  open();
  history_.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
  sqlite3_exec(db, "PRAGMA user_version=99", nullptr, nullptr, nullptr);
  sqlite3_close(db);
  outcome = History::open(path(), &opened);
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(outcome.message().find("newer"), std::string::npos) << outcome.message();
  EXPECT_FALSE(History::open(directory_ + "/no/such", &opened).ok());
}

TEST_F(Carrying, a_period_takes_its_part_of_what_crosses_its_ends) {
  const JobRecord job = add();
  hold(job.number, 3.0 * double(kHour), kBegin + kHour / 2);
  ASSERT_TRUE(store_->update(job).ok());
  carry();
  const auto part = [&](uint64_t since, uint64_t until) {
    HistoryReport report;
    EXPECT_TRUE(read_report(path(), {.since_ms = since, .until_ms = until}, &report).ok());
    double sum = 0;
    for (const JobUse& use : report.uses) sum += use.held_ms;
    return sum / double(kHour);
  };
  EXPECT_NEAR(part(kBegin, kBegin + 10 * kHour), 3, 1e-9);
  EXPECT_NEAR(part(kBegin + kHour, kBegin + 2 * kHour), 1, 1e-9);
  EXPECT_NEAR(part(kBegin + 3 * kHour + kHour / 4, kBegin + 10 * kHour), 0.25, 1e-9);
  EXPECT_NEAR(part(kBegin + 4 * kHour, kBegin + 10 * kHour), 0, 1e-9);
}

TEST_F(Carrying, what_is_too_old_is_forgotten) {
  const JobRecord job = add();
  hold(job.number, 1'000, kBegin);
  hold(job.number, 2'000, kBegin + 5 * kHour);
  ASSERT_TRUE(store_->update(job).ok());
  carry();
  bool more = false;
  ASSERT_TRUE(history_->forget_before(kBegin + 2 * kHour, &more).ok());
  EXPECT_TRUE(more);
  EXPECT_EQ(held(), 2'000);
  ASSERT_TRUE(history_->forget_before(kBegin + 2 * kHour, &more).ok());
  EXPECT_FALSE(more);
  EXPECT_EQ(held(), 2'000);
}

TEST(Report, sums_by_queue_user_and_job_with_money_and_a_verdict) {
  HistoryReport history;
  const auto use = [&](uint64_t job, const char* queue, const char* model, double held, double used) {
    history.uses.push_back({.outbox = 1,
                            .job = job,
                            .queue = queue,
                            .user = job == 3 ? "eve" : "adam",
                            .name = "n",
                            .model = model,
                            .held_ms = held,
                            .used_ms = used});
  };
  use(1, "red", "NVIDIA H200", 2 * double(kHour), double(kHour));
  use(1, "red", "NVIDIA A100", double(kHour), double(kHour));
  use(2, "red", "NVIDIA H200 NVL", double(kHour), 0);
  use(3, "blue", "something", double(kHour), 0.05 * double(kHour));
  history.starts = {{.outbox = 1, .job = 1, .queue = "red", .user = "adam", .wait_ms = 1'000},
                    {.outbox = 1, .job = 4, .queue = "red", .user = "adam", .wait_ms = 3'000}};
  const PriceConfig prices{.otherwise = {}, .currency = "EUR", .models = {{"H200", 4}, {"A100", 1}, {"H200 NVL", 5}}};
  const Report by_queue = make_report(history, ReportBy::kQueue, prices);
  ASSERT_EQ(by_queue.lines.size(), 2u);
  const ReportLine& red = by_queue.lines[0];
  EXPECT_EQ(red.key, "red");
  EXPECT_EQ(red.jobs, 3u);
  EXPECT_NEAR(red.held_ms, 4 * double(kHour), 1);
  EXPECT_NEAR(red.used_ms, 2 * double(kHour), 1);
  EXPECT_NEAR(red.money, 8 + 1 + 5, 1e-9);
  EXPECT_EQ(red.started, 2u);
  EXPECT_NEAR(red.wait_ms, 2'000, 1e-9);
  EXPECT_NEAR(by_queue.lines[1].unpriced_ms, double(kHour), 1);
  EXPECT_EQ(by_queue.total.jobs, 4u);
  EXPECT_NEAR(by_queue.total.money, 14, 1e-9);
  EXPECT_EQ(by_queue.idle_jobs, 2u);
  EXPECT_NEAR(by_queue.idle_ms, 1.95 * double(kHour), 1);
  EXPECT_EQ(make_report(history, ReportBy::kUser, prices).lines.size(), 2u);
  EXPECT_EQ(make_report(history, ReportBy::kJob, prices).lines.size(), 4u);
}

}  // namespace
}  // namespace tide::sched
