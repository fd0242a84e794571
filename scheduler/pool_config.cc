// Another pool.toml for a pool that runs: by SIGHUP, from the scheduler's own file, or by `tide config apply`, from
// somebody's, which becomes the scheduler's own.

#include <algorithm>
#include <memory>

#include "base/log.h"
#include "scheduler/change.h"
#include "scheduler/job_stats.h"
#include "scheduler/pool_service.h"
#include "scheduler/remote_error.h"
#include "scheduler/turns.h"

namespace tide::sched {
namespace {

constexpr size_t kTouchedMax = 1000;     // jobs that are listed
constexpr size_t kTouchedAskedMax = 32;  // whose servers are asked for their size
constexpr size_t kFileNameBytesMax = 4096;

using Texts = std::vector<std::string>;

void fill(capnp::List<capnp::Text>::Builder list, const Texts& texts) {
  for (uint32_t i = 0; i < list.size(); ++i) list.set(i, texts[i]);
}

// What of it the scheduler goes by: what its command line says counts more.
PoolConfig in_force(const PoolFile& file, const PoolConfig& config, const TurnRules& turns) {
  PoolConfig result = config;
  if (file.turns_given) result.turns = turns;
  if (result.turns.on && std::exchange(result.policy.preempts, false))
    log(LogLevel::kWarning,
        "pool.toml says preempt = true, which counts for nothing: the scheduler was started with --turns");
  return result;
}

ConfigChange change_to(const PoolCore& core, const PoolConfig& config) {
  ConfigChange change = compare(core.file.config, config);
  if (!core.file.turns_given) return change;
  const auto about_turns = [](const std::string& line) { return line.rfind("turns: ", 0) == 0; };
  for (const std::string& line : change.now) {
    if (about_turns(line))
      change.restart.push_back(line + "; the scheduler was started with --turns, which counts more");
  }
  std::erase_if(change.now, about_turns);
  return change;
}

void take(PoolCore& core, const PoolConfig& config, std::string text) {
  configure(&core.ledger, in_force(core.file, config, core.ledger.turns));
  core.recorder.resize(config.policy.journal_bytes);
  core.file.config = config;
  core.file.text = std::move(text);
  core.reconciler.poke();
}

// A touched job, with what its servers say of its size.
struct Sized {
  Touch touch;
  std::map<uint32_t, uint64_t> bytes;  // by vGPU
};

using AllSized = std::shared_ptr<std::vector<Sized>>;

kj::Promise<void> measure(PoolCore& core, const AllSized& all, size_t i) {
  const Touch& touch = all->at(i).touch;
  const Job* job = core.ledger.by_id(touch.job);
  if (i >= kTouchedAskedMax || job == nullptr || (touch.moves.empty() && !touch.switches)) return kj::READY_NOW;
  return JobStats::ask(core, *job).then([all, i](JobStats stats) {
    for (const auto& vgpu : stats.vgpus()) all->at(i).bytes[vgpu.getVgpu()] += vgpu.getResidentBytes();
  });
}

std::vector<Moved> moves_seen(const Ledger& ledger) {
  std::vector<Moved> seen;
  for (const auto& [number, job] : ledger.jobs) {
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      const MoveTotals& last = job.vgpus[v].last_move;
      if (last.vgpus != 0 && last.total_ms > 0)
        seen.push_back({.job = job.record.id(), .vgpu = v, .bytes = last.bytes, .pause_ms = last.pause_ms});
    }
  }
  return seen;
}

// Its vGPUs move one after the other: the longest pause is what a program sees at once.
PauseGuess pause_of(const Ledger& ledger, const Sized& sized) {
  PauseGuess longest{0, ""};
  const auto seen = moves_seen(ledger);
  for (const uint32_t v : sized.touch.moves) {
    const auto bytes = sized.bytes.find(v);
    const PauseGuess one = guess_pause(sized.touch.job, v, bytes == sized.bytes.end() ? 0 : bytes->second, seen);
    if (one.ms < 0) return one;
    if (one.ms >= longest.ms) longest = one;
  }
  return longest;
}

// Suspended and resumed, beside the time that it waits.
PauseGuess switch_of(const Ledger& ledger, const Sized& sized) {
  const auto found = ledger.jobs.find(parse_number(sized.touch.job));
  if (found == ledger.jobs.end()) return {};
  const TurnRecord& turn = found->second.record.turn;
  SwitchCost cost{.suspend_ms = turn.suspend_ms, .resume_ms = turn.resume_ms};
  for (const auto& [vgpu, bytes] : sized.bytes) cost.bytes += bytes;
  if (cost.suspend_ms != 0 && cost.resume_ms != 0)
    return {double(cost_ms(cost)), "as suspending and resuming it took the last time; and its wait for the next turn"};
  if (cost.bytes == 0) return {-1, "not known: it was not suspended yet; and its wait for the next turn"};
  return {double(cost_ms(cost)),
          format("reckoned from %lu MiB in use at 1 GiB/s each way; and its wait for the next turn",
                 (unsigned long)(cost.bytes >> 20))};
}

void fill_touched(const Ledger& ledger, const Sized& sized, control::Touched::Builder out) {
  out.setJob(sized.touch.job);
  out.setWhat(sized.touch.what);
  const bool stands = sized.touch.switches || !sized.touch.moves.empty();
  const PauseGuess guess = !stands                ? PauseGuess{0, "it does not stand still for it"}
                           : sized.touch.switches ? switch_of(ledger, sized)
                                                  : pause_of(ledger, sized);
  out.setPauseMs(guess.ms);
  out.setSource(guess.source);
}

class DraftServer final : public control::Draft::Server {
 public:
  explicit DraftServer(PoolCore& core) : core_(core) {}

 protected:
  kj::Promise<void> add(AddContext context) override {
    const auto text = context.getParams().getText();
    if (text_.size() + text.size() > kConfigBytesMax)
      return error_for_caller(format("a pool.toml has at most %zu MiB", kConfigBytesMax >> 20));
    text_.append(text.begin(), text.size());
    return kj::READY_NOW;
  }

  kj::Promise<void> apply(ApplyContext context) override {
    const auto params = context.getParams();
    const std::string name = std::string(params.getFile()).substr(0, kFileNameBytesMax);
    auto outcome = context.getResults().initOutcome();
    PoolConfig config;
    Texts errors;
    for (const ConfigError& error : parse_config(text_, name, &config)) errors.push_back(error.text());
    if (!errors.empty()) {
      fill(outcome.initErrors(uint32_t(errors.size())), errors);
      return kj::READY_NOW;
    }
    const ConfigChange change = change_to(core_, config);
    const std::vector<Touch> touches = foresee(config);
    if (!params.getDryRun()) {
      const Outcome kept = replace_pool_file(core_.file, text_);
      if (!kept.ok()) return error_for_caller(kept.message());
      take(core_, config, text_);
      log(LogLevel::kInfo, "%s was applied: %zu changes, %zu want a restart", name.c_str(), change.now.size(),
          change.restart.size());
    }
    fill(outcome.initChanges(uint32_t(change.now.size())), change.now);
    Texts restart = change.restart;
    if (core_.election != nullptr && !change.now.empty())
      restart.push_back(
          "the other schedulers have files of their own: apply it to each (`--pool ADDRESS`), else what "
          "theirs say counts when one of them leads");
    fill(outcome.initRestart(uint32_t(restart.size())), restart);
    outcome.setKeptIn(core_.file.path);
    return tell(context, touches);
  }

 private:
  // What it does to jobs, reckoned with the real policy on a copy of all that is.
  std::vector<Touch> foresee(const PoolConfig& config) {
    Ledger then = core_.ledger;
    configure(&then, in_force(core_.file, config, core_.ledger.turns));
    std::vector<Touch> touches = touched(core_.reconciler.look(), core_.reconciler.look(then));
    if (touches.size() > kTouchedMax) touches.resize(kTouchedMax);
    return touches;
  }

  kj::Promise<void> tell(ApplyContext context, const std::vector<Touch>& touches) {
    const auto all = std::make_shared<std::vector<Sized>>();
    for (const Touch& touch : touches) all->push_back({touch, {}});
    kj::Vector<kj::Promise<void>> measured;
    for (size_t i = 0; i < all->size(); ++i) measured.add(measure(core_, all, i));
    return kj::joinPromises(measured.releaseAsArray()).then([this, context, all]() mutable {
      auto list = context.getResults().getOutcome().initTouched(uint32_t(all->size()));
      for (uint32_t i = 0; i < list.size(); ++i) fill_touched(core_.ledger, all->at(i), list[i]);
    });
  }

  PoolCore& core_;
  std::string text_;
};

}  // namespace

kj::Promise<void> PoolService::configure(ConfigureContext context) {
  context.getResults().setDraft(kj::heap<DraftServer>(core_));
  return kj::READY_NOW;
}

void reload(PoolCore& core) {
  if (core.file.path.empty())
    return log(LogLevel::kWarning,
               "SIGHUP: this scheduler was started without a pool.toml, so there is nothing to read again");
  PoolFile fresh;
  const auto errors = open_pool_file(core.file.path, &fresh);
  for (const ConfigError& error : errors) log(LogLevel::kError, "%s", error.text().c_str());
  if (!errors.empty()) return log(LogLevel::kError, "%s has errors; nothing has changed", core.file.path.c_str());
  const ConfigChange change = change_to(core, fresh.config);
  for (const std::string& line : change.now) log(LogLevel::kInfo, "%s", line.c_str());
  for (const std::string& line : change.restart) log(LogLevel::kWarning, "%s", line.c_str());
  log(LogLevel::kInfo, "%s was read again: %zu changes", core.file.path.c_str(), change.now.size());
  take(core, fresh.config, fresh.text);
}

}  // namespace tide::sched
