#include "scheduler/accounts.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr size_t kFormerMax = 256;  // places of one job

// Milliseconds since the job was counted last, by whomever.
uint64_t since_ms(const AccountRecord& record, const Moment& now) {
  if (record.boot == 0) return 0;
  if (record.boot == now.boot) return now.clock_ns > record.clock_ns ? (now.clock_ns - record.clock_ns) / kMs : 0;
  const uint64_t gone = now.wall_ms > record.wall_ms ? now.wall_ms - record.wall_ms : 0;
  return std::min(gone, kTakeOverMsMax);
}

}  // namespace

uint64_t this_boot() {
  char text[64] = {};
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  const ssize_t bytes = fd >= 0 ? read(fd, text, sizeof(text)) : 0;
  if (fd >= 0) close(fd);
  uint64_t hash = 0xcbf29ce484222325;
  for (ssize_t i = 0; i < bytes; ++i) hash = (hash ^ uint8_t(text[i])) * 0x100000001b3;
  return std::max<uint64_t>(hash, 1);
}

Event Accounts::event(EventKind kind, const Job& job, const Moment& now) const {
  Event event;
  event.kind = kind;
  event.job = job.record.number;
  event.at_ms = now.wall_ms;
  return event;
}

Event Accounts::held_event(const Account& account, uint32_t vgpu, const Slot& slot, const Moment& now) {
  const uint64_t here = account.closed_ns < now.clock_ns ? (now.clock_ns - account.closed_ns) / kMs : 0;
  const uint64_t since = here + account.before_ms;
  return {.kind = EventKind::kHeld,
          .job = account.who.number,
          .at_ms = now.wall_ms,
          .queue = account.who.queue,
          .user = account.who.user,
          .name = account.who.name,
          .gpu = to_text(slot.at),
          .model = slot.model,
          .vgpu = vgpu,
          .from_ms = now.wall_ms - std::min(since, now.wall_ms),
          .held_ms = slot.held_ms,
          .used_ms = slot.used_ms};
}

Accounts::Account& Accounts::account_of(const Job& job, const Moment& now) {
  const auto [found, fresh] = accounts_.try_emplace(job.record.number);
  Account& account = found->second;
  if (!fresh) return account;
  account.who.number = job.record.number;
  account.who.queue = job.record.queue;
  account.who.user = job.record.user;
  account.who.name = job.record.name;
  account.slots.resize(job.vgpus.size());
  account.counted_ns = account.closed_ns = now.clock_ns;
  return account;
}

void Accounts::take_over(const Job& job, const Moment& now) {
  Account& account = account_of(job, now);
  const AccountRecord& record = job.record.account;
  account.before_ms = since_ms(record, now);
  account.started = job.started;
  account.parked = job.started && job.is_parked();
  account.gpus = job.physical_gpus();
  std::map<GpuId, uint32_t> sharers;
  for (const Vgpu& vgpu : job.vgpus) ++sharers[vgpu.at];
  for (uint32_t v = 0; v < account.slots.size(); ++v) {
    Slot& slot = account.slots[v];
    const GpuId& at = job.vgpus[v].at;
    slot.epoch = job.vgpus[v].epoch;
    if (v < record.used.size() && record.used[v].epoch == slot.epoch) slot.seen_ms = record.used[v].used_ms;
    if (!at.on_gpu()) continue;
    slot.at = at;
    slot.share = double(job.record.part) / kWholeGpu / sharers[at];
    slot.held_ms = double(account.before_ms) * slot.share;
  }
}

void Accounts::advance(Account* account, uint64_t now_ns) {
  const double ms = now_ns > account->counted_ns ? double(now_ns - account->counted_ns) / kMs : 0;
  account->counted_ns = std::max(now_ns, account->counted_ns);
  for (Slot& slot : account->slots) slot.held_ms += slot.at.none() ? 0 : ms * slot.share;
}

void Accounts::note_held(Account* account, uint32_t vgpu, Slot* slot, const Moment& now) {
  const bool some = slot->held_ms > 0 || slot->used_ms > 0;
  account->noted |= some;
  if (some) note_(held_event(*account, vgpu, *slot, now));
  slot->held_ms = slot->used_ms = 0;
}

// Whether nothing has changed about where it is.
bool Accounts::is_as_before(const Job& job, const Account& account) {
  for (uint32_t v = 0; v < account.slots.size(); ++v) {
    const Slot& slot = account.slots[v];
    const Vgpu& vgpu = job.vgpus[v];
    const bool holds = vgpu.at.on_gpu() && !job.ended();
    if (holds ? slot.at != vgpu.at || slot.epoch != vgpu.epoch || slot.model.empty() : !slot.at.none()) return false;
  }
  return true;
}

void Accounts::look_at_places(const Ledger& ledger, const Job& job, Account* account, const Moment& now) {
  if (is_as_before(job, *account)) return;
  account->unsettled = true;
  std::map<GpuId, uint32_t> sharers;
  for (const Vgpu& vgpu : job.vgpus) ++sharers[vgpu.at];
  for (uint32_t v = 0; v < account->slots.size(); ++v) {
    Slot& slot = account->slots[v];
    const Vgpu& vgpu = job.vgpus[v];
    const bool holds = vgpu.at.on_gpu() && !job.ended(), same = slot.epoch == vgpu.epoch;
    const GpuId at = holds ? vgpu.at : GpuId();
    const double share = holds ? double(job.record.part) / kWholeGpu / sharers[at] : 0;
    if (slot.at != at || slot.share != share || (holds && !same)) {
      if (!slot.at.none()) note_held(account, v, &slot, now);
      if (!slot.at.none() && !(same && holds))
        account->former.push_back({.vgpu = v, .slot = slot, .left_ns = now.clock_ns});
      const double seen_ms = same && holds ? slot.seen_ms : 0;
      slot = {.at = at, .share = share, .model = "", .epoch = holds ? vgpu.epoch : 0, .seen_ms = seen_ms};
    }
    const Gpu* const gpu = slot.at.none() || !slot.model.empty() ? nullptr : ledger.gpu(slot.at);
    if (gpu != nullptr) slot.model = gpu->name;
  }
  if (account->former.size() > kFormerMax)
    account->former.erase(account->former.begin(), account->former.end() - long(kFormerMax));
}

// Called with all counted until now.
void Accounts::look(const Ledger& ledger, const Job& job, Account* account, const Moment& now) {
  look_at_places(ledger, job, account, now);
  if (job.started && !std::exchange(account->started, true)) {
    Event started = event(EventKind::kStarted, job, now);
    started.after = account->gpus = job.physical_gpus();
    note_(std::move(started));
  }
  if (job.ended() && !std::exchange(account->ended, true)) {
    Event ended = event(EventKind::kEnded, job, now);
    ended.text = job.record.reason;
    ended.status = job.record.exit_status;
    note_(std::move(ended));
  }
  if (!account->unsettled || !job.started || job.ended() || !job.is_quiet()) return;
  account->unsettled = false;
  const uint32_t gpus = job.physical_gpus();
  const bool parked = job.is_parked();
  if (parked != account->parked && (parked || gpus != 0)) {
    account->parked = parked;
    Event changed = event(parked ? EventKind::kSuspended : EventKind::kResumed, job, now);
    if (parked) changed.text = job.record.idled ? "it did nothing" : job.taken;
    changed.after = gpus;
    if (!parked) account->gpus = gpus;
    return note_(std::move(changed));
  }
  if (account->parked || gpus == 0 || gpus == account->gpus) return;
  Event changed = event(gpus > account->gpus ? EventKind::kGrew : EventKind::kShrank, job, now);
  changed.before = account->gpus;
  changed.after = account->gpus = gpus;
  note_(std::move(changed));
}

void Accounts::count(const Ledger& ledger, const Moment& now) {
  for (const auto& [number, job] : ledger.jobs) {
    Account& account = account_of(job, now);
    advance(&account, now.clock_ns);
    look(ledger, job, &account, now);
  }
  count_capacity(ledger, now);
  forget_ended(ledger, now);
}

void Accounts::count_capacity(const Ledger& ledger, const Moment& now) {
  if (capacity_ns_ == 0) capacity_ns_ = capacity_noted_ns_ = now.clock_ns;
  const double ms = double(now.clock_ns - capacity_ns_) / kMs;
  capacity_ns_ = now.clock_ns;
  for (const auto& [name, server] : ledger.servers) {
    if (!server.online) continue;
    for (const Gpu& gpu : server.gpus) capacity_ms_[gpu.name] += ms;
  }
  if (now.clock_ns - capacity_noted_ns_ < kCountMs * kMs) return;
  const uint64_t since = (now.clock_ns - capacity_noted_ns_) / kMs;
  for (const auto& [model, held_ms] : capacity_ms_) {
    Event event{.kind = EventKind::kCapacity, .at_ms = now.wall_ms, .model = model};
    event.from_ms = now.wall_ms - std::min(since, now.wall_ms);
    event.held_ms = held_ms;
    note_(std::move(event));
  }
  capacity_ms_.clear();
  capacity_noted_ns_ = now.clock_ns;
}

// What was used until the end is said a little later.
void Accounts::forget_ended(const Ledger& ledger, const Moment& now) {
  for (auto it = accounts_.begin(); it != accounts_.end();) {
    Account& account = it->second;
    std::erase_if(account.former, [&](Former& former) {
      note_held(&account, former.vgpu, &former.slot, now);
      return now.clock_ns - former.left_ns > kKeepEndedMs * kMs;
    });
    const bool gone = ledger.jobs.count(it->first) == 0;
    it = gone && account.former.empty() ? accounts_.erase(it) : std::next(it);
  }
}

void Accounts::note_all(Account* account, const Moment& now) {
  for (uint32_t v = 0; v < account->slots.size(); ++v) note_held(account, v, &account->slots[v], now);
  account->closed_ns = now.clock_ns;
  account->before_ms = 0;
  account->noted = false;
}

void Accounts::close(const Ledger& ledger, Job* job, const Moment& now) {
  Account& account = account_of(*job, now);
  advance(&account, now.clock_ns);
  look(ledger, *job, &account, now);
  AccountRecord& record = job->record.account;
  const bool recent =
      record.boot == now.boot && account.before_ms == 0 && now.clock_ns - account.closed_ns < kCountLeastMs * kMs;
  if (!account.started || (recent && !account.noted)) return;
  note_all(&account, now);
  record = {.wall_ms = now.wall_ms, .boot = now.boot, .clock_ns = now.clock_ns, .used = {}};
  if (account.ended) return;
  for (const Slot& slot : account.slots) record.used.push_back({.epoch = slot.epoch, .used_ms = slot.seen_ms});
}

bool Accounts::due(const Job& job, uint64_t now_ns) const {
  const auto found = accounts_.find(job.record.number);
  return found != accounts_.end() && !job.ended() && job.started && now_ns - found->second.closed_ns >= kCountMs * kMs;
}

void Accounts::note_move(const Job& job, uint32_t vgpu, const GpuId& from, const MoveTotals& totals,
                         const Moment& now) {
  Event moved = event(EventKind::kMoved, job, now);
  moved.vgpu = vgpu;
  moved.text = to_text(from);
  moved.gpu = to_text(job.vgpus[vgpu].at);
  moved.pause_ms = std::max(totals.pause_ms, 0.0);
  moved.bytes = totals.bytes;
  note_(std::move(moved));
}

void Accounts::note_recovery(const Job& job, uint32_t vgpu, const Moment& now) {
  Event recovered = event(EventKind::kRecovered, job, now);
  recovered.vgpu = vgpu;
  recovered.gpu = to_text(job.vgpus[vgpu].at);
  note_(std::move(recovered));
}

void Accounts::heard(const std::vector<UsageSeen>& usage) {
  const auto take = [](Slot* slot, const UsageSeen& each) {
    if (slot->epoch != each.epoch || slot->at.none()) return false;
    // Less than before: another agent has begun to count.
    slot->used_ms += each.used_ms >= slot->seen_ms ? each.used_ms - slot->seen_ms : each.used_ms;
    slot->seen_ms = each.used_ms;
    return true;
  };
  for (const UsageSeen& each : usage) {
    const auto found = accounts_.find(parse_number(each.job));
    if (found == accounts_.end()) continue;
    Account& account = found->second;
    if (each.vgpu < account.slots.size() && take(&account.slots[each.vgpu], each)) continue;
    for (Former& former : account.former) {
      if (former.vgpu == each.vgpu && take(&former.slot, each)) break;
    }
  }
}

std::vector<Event> Accounts::open(const Moment& now) const {
  std::vector<Event> events;
  for (const auto& [number, account] : accounts_) {
    for (uint32_t v = 0; v < account.slots.size(); ++v) {
      if (account.slots[v].held_ms > 0 || account.slots[v].used_ms > 0)
        events.push_back(held_event(account, v, account.slots[v], now));
    }
  }
  for (const auto& [model, held_ms] : capacity_ms_) {
    const uint64_t since = (now.clock_ns - capacity_noted_ns_) / kMs;
    Event event{.kind = EventKind::kCapacity, .at_ms = now.wall_ms, .model = model};
    event.from_ms = now.wall_ms - std::min(since, now.wall_ms);
    event.held_ms = held_ms;
    events.push_back(std::move(event));
  }
  return events;
}

}  // namespace tide::sched
