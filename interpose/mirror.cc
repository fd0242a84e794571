#include "interpose/mirror.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "api/payload.h"
#include "base/page_digest.h"
#include "base/words.h"
#include "commands.h"
#include "interpose/host_zone.h"
#include "interpose/process.h"

namespace tide {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBlock = 256;           // differences are looked for in blocks
constexpr uint64_t kWatchMin = 64u << 10;  // below, comparing is quicker than asking the system
constexpr size_t kQuestionsAhead = 8;      // that the worker has at once

// One word: bytes that the program did not change since `last` become those of `now`, whatever else it does meanwhile.
template <class Word>
void take_word(std::byte* host, const std::byte* last, const std::byte* now) {
  auto* const word = reinterpret_cast<Word*>(host);
  Word is = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (true) {
    std::byte old[sizeof(Word)], made[sizeof(Word)];
    memcpy(old, &is, sizeof is);
    for (size_t i = 0; i < sizeof is; ++i) made[i] = old[i] == last[i] ? now[i] : old[i];
    Word wanted;
    memcpy(&wanted, made, sizeof wanted);
    if (wanted == is || __atomic_compare_exchange_n(word, &is, wanted, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
      return;
  }
}

void take_changes(std::byte* host, const std::byte* last, const std::byte* now, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes;) {
    const bool whole = bytes - at >= 8 && reinterpret_cast<uint64_t>(host + at) % 8 == 0;
    const uint64_t n = whole ? 8 : 1;
    if (memcmp(last + at, now + at, n) != 0) {
      if (whole) {
        take_word<uint64_t>(host + at, last + at, now + at);
      } else {
        take_word<uint8_t>(host + at, last + at, now + at);
      }
    }
    at += n;
  }
}

}  // namespace

// Changes of the program: in whole pages, or in a part of one.
struct Mirror::Run {
  uint64_t at = 0, bytes = 0;
  std::vector<uint64_t> mask;  // base/words.h
  bool is_part = false;
  uint64_t digest = 0;  // of the page that this is a part of, as the worker counts pages

  bool is_empty() const { return std::none_of(mask.begin(), mask.end(), is_set); }
  uint64_t first() const { return uint64_t(std::find_if(mask.begin(), mask.end(), is_set) - mask.begin()); }
  uint64_t last() const { return uint64_t(mask.rend() - std::find_if(mask.rbegin(), mask.rend(), is_set)) - 1; }
  bool is_wide() const { return last() - first() >= kPage / kMaskedBlock / 2; }
  // False: they do not go together.
  bool take(const Run& page) {
    if (is_part || at + bytes != page.at || bytes >= kHostPieceBytes || !page.is_wide()) return false;
    bytes += page.bytes;
    mask.insert(mask.end(), page.mask.begin(), page.mask.end());
    return true;
  }
  void narrow() {
    const uint64_t begin = first(), end = last() + 1;
    at += begin * kMaskedBlock;
    bytes = (end - begin) * kMaskedBlock;
    mask = {mask.begin() + int64_t(begin), mask.begin() + int64_t(end)};
    is_part = true;
  }
  static bool is_set(uint64_t word) { return word != 0; }
};

// One piece of what a worker is asked for.
struct Mirror::Question {
  Mirror* mirror = nullptr;
  uint64_t at = 0, bytes = 0;
  uint64_t sequence = 0;
  Reply reply;
};

Mirror::Mirror(uint64_t host, uint64_t device, uint64_t bytes, Far far, Vgpu& home)
    : host_(reinterpret_cast<std::byte*>(host)), device_(device), bytes_(bytes), far_(far), home_(home) {}

std::unique_ptr<Mirror> Mirror::make(uint64_t host, uint64_t device, uint64_t bytes, Far far, Vgpu& home) {
  std::unique_ptr<Mirror> mirror(new Mirror(host, device, bytes, far, home));
  void* const last =
      mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (last == MAP_FAILED) return nullptr;
  mirror->last_ = static_cast<std::byte*>(last);
  if (bytes > kWatchMin) mirror->watch();
  return mirror;
}

Mirror::~Mirror() {
  if (last_ != nullptr) munmap(last_, whole_pages(bytes_));
}

// Of registered memory the pages that are the block's alone, if they are the program's alone.
void Mirror::watch() {
  const auto begin = reinterpret_cast<uint64_t>(host_);
  const bool ours = HostZone::holds(begin);
  if (!ours && !is_private_memory(begin, bytes_)) return;
  const uint64_t first = whole_pages(begin);
  const uint64_t end = ours ? whole_pages(begin + bytes_) : (begin + bytes_) / kPage * kPage;
  watched_from_ = first - begin;
  watch_.start(first, end - first);
}

// --- to the worker ---

bool Mirror::is_known(uint64_t at, uint64_t bytes) const { return memcmp(host_ + at, last_ + at, bytes) == 0; }

// A send fails when the vGPU is lost, and then nothing is sent any more.
CUresult Mirror::push() {
  while (!sent_.empty() && sent_.front().sequence <= home_.channel().executed_to()) sent_.pop_front();
  find_touched();
  for (const auto& [from, to] : touched_) {
    if (CUresult r = push_touched(from, to); r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

// What was never touched holds zeros on both sides, and looking at it would bring it into being.
void Mirror::find_touched() {
  const auto begin = reinterpret_cast<uint64_t>(host_);
  if (!HostZone::holds(begin)) {
    touched_[0] = bytes_;
    return;
  }
  for (uint64_t at = 0; at < bytes_;) {
    const auto next = touched_.lower_bound(at);
    const uint64_t gap_end = next != touched_.end() ? next->first : whole_pages(bytes_);
    uint64_t data = begin + at, bytes = 0;
    if (at < gap_end && HostZone::instance().next_data(&data, begin + gap_end, &bytes)) {
      at = add_touched(data - begin, data - begin + bytes);
    } else if (next != touched_.end()) {
      at = next->second;
    } else {
      return;
    }
  }
}

// Joins its neighbours; the end of what it is now part of.
uint64_t Mirror::add_touched(uint64_t from, uint64_t to) {
  auto after = touched_.upper_bound(from);
  if (after != touched_.end() && after->first == to) {
    to = after->second;
    after = touched_.erase(after);
  }
  if (after != touched_.begin() && std::prev(after)->second == from) {
    std::prev(after)->second = to;
  } else {
    touched_[from] = to;
  }
  return to;
}

CUresult Mirror::push_touched(uint64_t from, uint64_t to) {
  const uint64_t watched_to = watched_from_ + watch_.bytes();
  const uint64_t begin = std::max(from, watched_from_), end = std::min(to, watched_to);
  if (!watch_.on() || begin >= end) return push_between(from, to);
  CUresult result = push_between(from, begin);
  const bool known = watch_.take_written(begin - watched_from_, end - watched_from_, [&](uint64_t at, uint64_t bytes) {
    at += watched_from_;
    if (result == CUDA_SUCCESS) result = push_between(at, at + bytes);
  });
  if (result == CUDA_SUCCESS) result = push_between(known ? end : begin, to);
  return result;
}

// Whole pages that lie beside each other go together; of a page with few changes only the part around them goes.
CUresult Mirror::push_between(uint64_t from, uint64_t to) {
  to = std::min(to, bytes_);
  std::optional<Run> run;
  for (uint64_t at = from / kPage * kPage; at < to; at += kPage) {
    if (is_known(at, std::min(kPage, bytes_ - at))) continue;
    Run page{at, kPage, std::vector<uint64_t>(kPage / kMaskedBlock)};
    note_changes(at, page.mask.data());
    if (page.is_empty()) continue;  // the program took it back meanwhile
    if (run && run->take(page)) continue;
    if (run) {
      if (CUresult r = send(*run); r != CUDA_SUCCESS) return r;
    }
    run = std::move(page);
    if (run->is_wide()) continue;
    run->narrow();
    if (far_ == Far::kPages) run->digest = page_digest(last_ + at);
  }
  return run ? send(*run) : CUDA_SUCCESS;
}

// Kernels may be writing beside what is sent, so only bytes that the program changed count; of aligned words of 8 both
// halves are of one moment.
void Mirror::note_changes(uint64_t page, uint64_t* mask) {
  const uint64_t end = std::min(page + kPage, bytes_);
  for (uint64_t at = page; at < end;) {
    std::byte now[8];
    const bool whole = end - at >= 8 && reinterpret_cast<uint64_t>(host_ + at) % 8 == 0;
    const uint64_t n = whole ? 8 : 1;
    if (whole) {
      const uint64_t word = __atomic_load_n(reinterpret_cast<const uint64_t*>(host_ + at), __ATOMIC_ACQUIRE);
      memcpy(now, &word, sizeof word);
    } else {
      now[0] = host_[at];
    }
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t offset = at - page + i;
      if (now[i] != last_[at + i]) mask[offset / kMaskedBlock] |= uint64_t{1} << offset % kMaskedBlock;
    }
    memcpy(last_ + at, now, n);
    at += n;
  }
}

CUresult Mirror::send(const Run& run) {
  const uint64_t there = far_ == Far::kPages ? whole_pages(bytes_) : bytes_;
  const uint64_t bytes = std::min(run.bytes, there - run.at);
  if (far_ == Far::kHere) {
    store_masked(reinterpret_cast<std::byte*>(device_) + run.at, last_ + run.at, bytes, run.mask.data());
    return CUDA_SUCCESS;
  }
  const command::WriteHost command{device_ + run.at, bytes, mask_words(bytes) * 8, run.digest,
                                   home_.channel().taken_to()};
  uint64_t sequence = 0;
  const CUresult result = home_.channel().send(
      {.call = Call::tideWriteHost,
       .payload_bytes = uint32_t(command::kWriteHostDataOffset + command.mask_bytes + bytes)},
      [&](std::byte* payload) {
        memcpy(payload, &command, sizeof command);
        payload += command::kWriteHostDataOffset;
        memcpy(payload, run.mask.data(), command.mask_bytes);
        memcpy(payload + command.mask_bytes, last_ + run.at, bytes);
      },
      &sequence);
  if (result == CUDA_SUCCESS && is_told()) sent_.push_back({sequence, run.at, bytes, run.mask});
  return result;
}

// --- from the worker ---

// Questions that are on their way, over all mirrors.
class Mirror::Pull {
 public:
  CUresult result() const { return result_; }
  void ask(Mirror& mirror, uint64_t at, uint64_t bytes) {
    while (open_.size() >= kQuestionsAhead) take_first();
    if (result_ != CUDA_SUCCESS) return;
    Question& question = open_.emplace_back();
    question.mirror = &mirror;
    question.at = at;
    question.bytes = bytes;
    result_ = mirror.ask(question);
    if (result_ != CUDA_SUCCESS) open_.pop_back();
  }
  void take_all() {
    while (!open_.empty()) take_first();
  }

 private:
  void take_first() {
    Question& first = open_.front();
    Mirror& mirror = *first.mirror;
    CUresult r = mirror.home_.channel().wait_reply(first.reply);
    if (r != CUDA_SUCCESS) mirror.home_.channel().forget(first.sequence);
    uint64_t taken = 0;
    if (r == CUDA_SUCCESS) r = first.reply.result;
    if (r == CUDA_SUCCESS) r = mirror.take_answer(first, &taken);
    if (result_ == CUDA_SUCCESS) result_ = r;
    const uint64_t at = first.at + taken, left = first.bytes - taken;
    open_.pop_front();
    if (r == CUDA_SUCCESS && left != 0) ask(mirror, at, left);  // more has changed than an answer holds
  }

  std::deque<Question> open_;
  CUresult result_ = CUDA_SUCCESS;
};

CUresult Mirror::pull(std::span<Mirror* const> mirrors) {
  Pull pull;
  for (Mirror* mirror : mirrors) {
    if (mirror->is_here()) {
      mirror->pull_here();
      continue;
    }
    const bool pages = mirror->far_ == Far::kPages;
    const uint64_t bytes = pages ? whole_pages(mirror->bytes_) : mirror->bytes_;
    const uint64_t most = pages ? kHostQuestionBytes : kHostPieceBytes;
    for (uint64_t at = 0; at < bytes; at += most) pull.ask(*mirror, at, std::min(most, bytes - at));
  }
  pull.take_all();
  return pull.result();
}

CUresult Mirror::ask(Question& question) {
  const command::ChangedHost command{device_ + question.at, question.bytes};
  const Call call = far_ == Far::kPages ? Call::tideChangedHost : Call::tideReadHost;
  static_assert(sizeof(command::ReadHost) == sizeof command);
  return home_.channel().send(
      {.call = call, .payload_bytes = sizeof command, .reply = &question.reply},
      [&](std::byte* payload) { memcpy(payload, &command, sizeof command); }, &question.sequence);
}

// What came over the wire is checked. *taken: of the bytes that were asked for, those that this is an answer for.
CUresult Mirror::take_answer(const Question& question, uint64_t* taken) {
  const std::byte* from = question.reply.payload.data();
  const uint64_t there = question.reply.payload.size();
  if (far_ == Far::kVariable) {
    if (there < question.bytes) return CUDA_ERROR_UNKNOWN;
    take(question.at, from, question.bytes);
    *taken = question.bytes;
    return CUDA_SUCCESS;
  }
  ChangedHostAnswer answer;
  if (there < sizeof answer) return CUDA_ERROR_UNKNOWN;
  memcpy(&answer, from, sizeof answer);
  const uint64_t data = sizeof answer + (answer.pages * 4 + 7) / 8 * 8;
  if (answer.bytes == 0 || answer.bytes % kPage != 0 || answer.bytes > question.bytes ||
      answer.pages > answer.bytes / kPage || there < data + answer.pages * kPage) {
    return CUDA_ERROR_UNKNOWN;
  }
  for (uint64_t i = 0; i < answer.pages; ++i) {
    uint32_t page = 0;
    memcpy(&page, from + sizeof answer + i * sizeof page, sizeof page);
    if (page >= answer.bytes / kPage) return CUDA_ERROR_UNKNOWN;
    take(question.at + page * kPage, from + data + i * kPage, kPage);
  }
  *taken = answer.bytes;
  return CUDA_SUCCESS;
}

// The worker did not have yet what was sent behind `executed`.
void Mirror::take_told(uint64_t at, const std::byte* page, uint64_t executed) {
  if (executed < told_since_) return;  // another block's, which lay there before
  alignas(8) std::byte now[kPage];
  memcpy(now, page, kPage);
  for (const Sent& sent : sent_) {
    const uint64_t begin = std::max(at, sent.at), end = std::min(at + kPage, sent.at + sent.bytes);
    if (sent.sequence <= executed || begin >= end) continue;
    store_masked(now + (begin - at), last_ + begin, end - begin, sent.mask.data() + (begin - sent.at) / kMaskedBlock);
  }
  take(at, now, kPage);
}

// The far side changes while it is looked at: what is taken is copied first.
void Mirror::pull_here() {
  const auto* const far = reinterpret_cast<const std::byte*>(device_);
  std::byte now[kPage];
  for (uint64_t at = 0; at < bytes_; at += kPage) {
    const uint64_t n = std::min(kPage, bytes_ - at);
    if (memcmp(far + at, last_ + at, n) == 0) continue;
    memcpy(now, far + at, n);
    take(at, now, n);
  }
}

void Mirror::take(uint64_t at, const std::byte* now, uint64_t bytes) {
  const uint64_t end = std::min(at + bytes, bytes_);
  for (; at < end; at += kBlock, now += kBlock) {
    const uint64_t n = std::min(kBlock, end - at);
    if (memcmp(now, last_ + at, n) == 0) continue;
    take_changes(host_ + at, last_ + at, now, n);
    memcpy(last_ + at, now, n);
  }
}

}  // namespace tide
