#include "server/verdict.h"

#include <cstring>
#include <sstream>

namespace tide {
namespace {

constexpr uint32_t kLastWordsMs = 100;

struct Verdict {
  uint32_t ok = 0;
  char message[500] = {};
};

std::string words_of(Verdict& verdict) {
  verdict.message[sizeof(verdict.message) - 1] = '\0';
  return verdict.message;
}

std::string text_of(Verdict& verdict) { return "the destination says: " + words_of(verdict); }

}  // namespace

Outcome send_verdict(ByteStream& stream, const Outcome& outcome, const std::string& words) {
  Verdict verdict;
  verdict.ok = outcome.ok() ? 1 : 0;
  const std::string text = (outcome.ok() ? words : outcome.message()).substr(0, sizeof(verdict.message) - 1);
  memcpy(verdict.message, text.data(), text.size());
  // No flush: the source reads it, and then may not look at the stream for a while.
  return stream.send(&verdict, sizeof(verdict));
}

Outcome await_verdict(ByteStream& stream, uint32_t timeout_ms, std::string* words) {
  Verdict verdict;
  if (Outcome outcome = stream.receive(&verdict, sizeof(verdict), timeout_ms); !outcome.ok()) return outcome;
  if (verdict.ok == 0) return Outcome::fail(text_of(verdict));
  if (words != nullptr) *words = words_of(verdict);
  return {};
}

std::string returns_words(uint64_t done) { return std::string(" ") + kReturnsWord + " " + std::to_string(done); }

bool read_returns(const std::string& words, uint64_t* done) {
  std::istringstream line(words.substr(0, words.find('\n')));
  for (std::string word; line >> word;) {
    if (word == kReturnsWord) return bool(line >> *done);
  }
  return false;
}

std::string last_words(ByteStream& stream) {
  Verdict verdict;
  // What it has said before it gave up comes first.
  do {
    if (!stream.receive(&verdict, sizeof(verdict), kLastWordsMs).ok()) return {};
  } while (verdict.ok != 0);
  return text_of(verdict);
}

}  // namespace tide
