#include "scheduler/decision_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/mix.h"

namespace tide::sched {
namespace {

constexpr char kPrefix[] = "decisions.";
constexpr uint64_t kFilesAbout = 8;                        // that the ring has
constexpr uint64_t kFileBytesMax = 2 * kSnapshotBytesMax;  // what is read at once
constexpr uint32_t kMagic = 0x43454454;
constexpr uint32_t kWhole = 1, kDifference = 2;

struct Head {
  uint32_t magic = kMagic, kind = 0;
  uint64_t number = 0, at_ms = 0;
  uint64_t answer_bytes = 0, input_bytes = 0;
  uint64_t check = 0;  // of all before it, and of what follows
};

uint64_t check_of(const Head& head, std::string_view payload) {
  uint64_t check = mix(head.kind) ^ mix(head.number + 1) ^ mix(head.at_ms + 2) ^ mix(head.answer_bytes + 3);
  for (size_t at = 0; at < payload.size(); at += 8) {
    uint64_t word = 0;
    memcpy(&word, payload.data() + at, std::min<size_t>(8, payload.size() - at));
    check = mix(check ^ word);
  }
  return check;
}

struct Frame {
  Head head;
  std::string_view answer, input;
};

// The frames of a file, as far as they are whole.
class Frames {
 public:
  explicit Frames(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info = {};
    if (fd < 0 || fstat(fd, &info) != 0) {
      failed_ = errno;
    } else if (uint64_t(info.st_size) > kFileBytesMax) {
      failed_ = EFBIG;
    } else {
      bytes_.resize(size_t(info.st_size));
      size_t got = 0;
      for (ssize_t n = 1; got < bytes_.size() && n > 0; got += n > 0 ? size_t(n) : 0) {
        do n = read(fd, bytes_.data() + got, bytes_.size() - got);
        while (n < 0 && errno == EINTR);
        if (n < 0) failed_ = errno;
      }
      bytes_.resize(got);
    }
    if (fd >= 0) close(fd);
  }
  // Why not all of it was read; 0: all was.
  int failed() const { return failed_; }

  bool next(Frame* frame) {
    const std::string_view rest = std::string_view(bytes_).substr(at_);
    if (rest.size() < sizeof(Head)) return false;
    memcpy(&frame->head, rest.data(), sizeof(Head));
    const Head& head = frame->head;
    const uint64_t room = rest.size() - sizeof(Head);
    if (head.magic != kMagic || head.answer_bytes > room || head.input_bytes > room - head.answer_bytes) return false;
    const std::string_view payload = rest.substr(sizeof(Head), head.answer_bytes + head.input_bytes);
    if (check_of(head, payload) != head.check) return false;
    frame->answer = payload.substr(0, head.answer_bytes);
    frame->input = payload.substr(head.answer_bytes);
    at_ += sizeof(Head) + payload.size();
    return true;
  }
  // The last number that was given, behind `last`; also one that is cut off, and those behind damage.
  uint64_t newest(uint64_t last) {
    const std::string_view magic(reinterpret_cast<const char*>(&kMagic), sizeof(kMagic));
    while (at_ < bytes_.size()) {
      Frame frame;
      if (next(&frame)) {
        last = std::max(last, frame.head.number);
        continue;
      }
      if (frame.head.magic == kMagic && frame.head.number == last + 1) ++last;
      at_ = std::min(bytes_.find(magic, at_ + 1), bytes_.size());
    }
    return last;
  }

 private:
  int failed_ = 0;
  std::string bytes_;
  size_t at_ = 0;
};

Outcome cannot(const char* what, const std::string& path) {
  return Outcome::fail(std::string("cannot ") + what + " " + path + ": " + strerror(errno));
}

bool write_all(int fd, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = write(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += size_t(n);
  }
  return true;
}

std::string name_of(uint64_t number) { return kPrefix + format("%020lu", (unsigned long)number); }
std::string path_in(const std::string& directory, uint64_t number) { return directory + "/" + name_of(number); }

}  // namespace

Outcome DecisionFiles::open(const std::string& directory, uint64_t bytes_max, std::optional<DecisionFiles>* files) {
  DecisionFiles made(directory, bytes_max);
  const Outcome looked = made.look();
  if (looked.ok()) *files = std::move(made);
  return looked;
}

Outcome DecisionFiles::look() {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) return cannot("create", directory_);
  DIR* const dir = opendir(directory_.c_str());
  if (dir == nullptr) return cannot("read", directory_);
  std::vector<uint64_t> numbers;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    const uint64_t number = name.rfind(kPrefix, 0) == 0 ? strtoull(name.c_str() + sizeof(kPrefix) - 1, nullptr, 10) : 0;
    if (name == name_of(number)) numbers.push_back(number);
  }
  closedir(dir);
  std::sort(numbers.begin(), numbers.end());
  for (const uint64_t number : numbers) {
    File file{.path = path_in(directory_, number)};
    Frames frames(file.path);
    // What it has may be readable again later, and its numbers have been given.
    if (errno = frames.failed(); errno != 0) return cannot("read", file.path);
    Frame frame;
    const bool begins = frames.next(&frame) && frame.head.number == number;
    next_ = std::max(next_, frames.newest(number) + 1);  // also of one that goes: no number is given twice
    if (!begins) {
      unlink(file.path.c_str());  // not even its first decision is whole
      continue;
    }
    file.first_ms = frame.head.at_ms;
    struct stat info = {};
    file.bytes = stat(file.path.c_str(), &info) == 0 ? uint64_t(info.st_size) : 0;
    files_[number] = file;
  }
  return {};
}

uint64_t DecisionFiles::bytes() const {
  uint64_t sum = 0;
  for (const auto& [number, file] : files_) sum += file.bytes;
  return sum;
}

// The oldest files go.
void DecisionFiles::make_room(uint64_t more) {
  while (!files_.empty() && bytes() + more > bytes_max_) {
    unlink(files_.begin()->second.path.c_str());
    if (files_.size() == 1) fresh_ = true;
    files_.erase(files_.begin());
  }
}

void DecisionFiles::keep(uint64_t bytes_max) {
  bytes_max_ = bytes_max;
  make_room(0);
}

// All of it or nothing. `*size`: of the file before, 0: it is to begin; and then as it is now.
Outcome DecisionFiles::write_to(const std::string& path, const std::string& frame, uint64_t* size) const {
  const int begin = *size == 0 ? O_CREAT | O_TRUNC : 0;
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | begin, 0600);
  if (fd < 0) return cannot("write", path);
  Outcome outcome;
  struct stat info = {};
  if (fstat(fd, &info) != 0 || uint64_t(info.st_size) != *size) {
    outcome = Outcome::fail(path + " was changed by somebody else");
  } else if (!write_all(fd, frame)) {
    outcome = cannot("write", path);
    if (ftruncate(fd, off_t(*size)) != 0)
      log(LogLevel::kWarning, "%s ends in the middle of a decision, which is left out when it is read", path.c_str());
  } else {
    *size += frame.size();
  }
  close(fd);
  return outcome;
}

Outcome DecisionFiles::append(Snapshot* snapshot) {
  // Of large states few files, so that a whole one is worth many differences.
  const uint64_t file_most =
      std::min(kFileBytesMax, std::max(bytes_max_ / kFilesAbout, std::min(bytes_max_ / 2, kFilesAbout * whole_bytes_)));
  const std::string answer = answer_bytes(*snapshot);
  Head head{.number = next_, .at_ms = snapshot->at_ms, .answer_bytes = answer.size()};
  std::string input;
  const bool whole_again = differences_ >= kDifferencesMax || difference_bytes_ > 2 * whole_bytes_;
  if (!fresh_ && !files_.empty() && !whole_again) input = difference_bytes(before_, snapshot->state);
  const uint64_t has = files_.empty() ? 0 : files_.rbegin()->second.bytes;
  const bool anew = fresh_ || files_.empty() || has + sizeof(Head) + answer.size() + input.size() > file_most;
  head.kind = anew || input.empty() ? kWhole : kDifference;
  if (head.kind == kWhole) input = state_bytes(snapshot->state);
  head.input_bytes = input.size();
  head.check = check_of(head, answer + input);
  const std::string frame = std::string(reinterpret_cast<const char*>(&head), sizeof(Head)) + answer + input;
  if (frame.size() > bytes_max_) {
    return Outcome::fail(
        format("a decision takes %zu KiB, more than `journal` under [policy] of pool.toml allows", frame.size() >> 10));
  }
  make_room(frame.size());
  const bool begin = anew || files_.empty();  // room was made by giving up the file that it belongs to
  if (begin && head.kind != kWhole) return fresh_ = true, append(snapshot);
  File file =
      begin ? File{.path = path_in(directory_, next_), .bytes = 0, .first_ms = head.at_ms} : files_.rbegin()->second;
  if (begin && mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) return cannot("create", directory_);
  const Outcome written = write_to(file.path, frame, &file.bytes);
  if (!written.ok()) {
    fresh_ = true;
    if (!begin) return append(snapshot);  // a file of its own may do: where that one is gone, for instance
    unlink(file.path.c_str());
    return written;
  }
  files_[begin ? next_ : files_.rbegin()->first] = file;
  fresh_ = false;
  differences_ = head.kind == kWhole ? 0 : differences_ + 1;
  if (head.kind == kWhole) whole_bytes_ = input.size(), difference_bytes_ = 0;
  if (head.kind == kDifference) difference_bytes_ += input.size();
  before_ = snapshot->state;
  snapshot->number = next_++;
  return {};
}

Outcome DecisionFiles::find(const Which& which, Snapshot* snapshot) const {
  if (files_.empty()) return Outcome::fail("no decision has been recorded yet");
  auto file = files_.end();
  if (which.number != 0) {
    file = files_.upper_bound(which.number);
  } else if (which.at_ms != 0) {
    file = std::find_if(files_.begin(), files_.end(), [&](const auto& f) { return f.second.first_ms > which.at_ms; });
  }
  if (file == files_.begin()) {
    return Outcome::fail(
        format("that is too long ago; the journal goes back to decision %lu", (unsigned long)files_.begin()->first));
  }
  --file;
  Frames frames(file->second.path);
  Snapshot made;
  Outcome outcome = Outcome::fail(file->second.path + " is damaged");
  for (Frame frame; frames.next(&frame);) {
    if ((which.number != 0 && frame.head.number > which.number) ||
        (which.number == 0 && which.at_ms != 0 && frame.head.at_ms > which.at_ms))
      break;
    const std::string input(frame.input);
    outcome = frame.head.kind == kWhole ? read_state(input, &made.state) : apply_difference(input, &made.state);
    if (outcome.ok()) outcome = read_answer(std::string(frame.answer), &made);
    if (!outcome.ok()) return Outcome::fail(file->second.path + ": " + outcome.message());
    made.number = frame.head.number;
    made.at_ms = frame.head.at_ms;
  }
  if (!outcome.ok()) return outcome;
  if (which.number != 0 && made.number != which.number) {
    return Outcome::fail(
        format("there is no decision %lu; the last is %lu", (unsigned long)which.number, (unsigned long)last()));
  }
  *snapshot = std::move(made);
  return {};
}

std::vector<JobDecision> DecisionFiles::about(const std::string& job, size_t most) const {
  std::vector<JobDecision> all;
  for (auto file = files_.rbegin(); file != files_.rend() && all.size() < most; ++file) {
    std::vector<JobDecision> here;
    Frames frames(file->second.path);
    for (Frame frame; frames.next(&frame);) {
      Snapshot read;
      if (!read_answer(std::string(frame.answer), &read).ok()) continue;
      for (Decided& each : read.answer) {
        if (each.job == job)
          here.push_back({.number = frame.head.number, .at_ms = frame.head.at_ms, .decided = std::move(each)});
      }
    }
    all.insert(all.begin(), std::make_move_iterator(here.begin()), std::make_move_iterator(here.end()));
  }
  if (all.size() > most) all.erase(all.begin(), all.end() - ptrdiff_t(most));
  return all;
}

}  // namespace tide::sched
