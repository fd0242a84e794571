#pragma once

// An error as a value for the rooms that live inside other people's processes, where Abseil may not go.

#include <string>
#include <utility>

namespace tide {

// OK, or one sentence for a person: the exact cause and, where there is one, the next step.
class [[nodiscard]] Outcome {
 public:
  Outcome() = default;
  static Outcome fail(std::string message) {
    Outcome o;
    o.message_ = message.empty() ? "unknown error" : std::move(message);
    return o;
  }
  bool ok() const { return message_.empty(); }
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

}  // namespace tide
