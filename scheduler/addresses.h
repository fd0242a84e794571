#pragma once

// Where the schedulers of a pool may be: "ADDRESS:PORT", or several of them with commas between, that are tried in
// turn; one that is not the leader may say who is.

#include <cstdint>
#include <string>
#include <vector>

namespace tide::sched {

// Of looks at others, before one that was silent is looked at again: with the pauses between them that is longer than
// others go on saying that it leads.
inline constexpr uint32_t kAvoidLooks = 15;

class Addresses {
 public:
  explicit Addresses(const std::string& list) {
    for (size_t at = 0; at <= list.size();) {
      const size_t comma = list.find(',', at) == std::string::npos ? list.size() : list.find(',', at);
      all_.push_back(list.substr(at, comma - at));
      at = comma + 1;
    }
  }

  const std::vector<std::string>& all() const { return all_; }
  bool several() const { return all_.size() > 1; }
  const std::string& present() const { return named_.empty() ? all_[at_] : named_; }
  // The present one does not answer, or knows no leader.
  void next() {
    if (looks_ != 0 && --looks_ == 0) avoided_.clear();
    step();
    if (present() == avoided_) step();
  }
  // This one was connected, and is silent: if it is stopped, it stays so for a while.
  void avoid(const std::string& silent) {
    if (several()) avoided_ = silent;
    looks_ = kAvoidLooks;
    if (present() == silent) step();
  }
  // The present one says that this one leads.
  void follow(const std::string& leader) {
    if (leader == avoided_) return next();
    step();
    for (size_t i = 0; i < all_.size(); ++i) {
      if (all_[i] == leader) at_ = i;
    }
    if (all_[at_] != leader) named_ = leader;
  }

 private:
  void step() {
    if (named_.empty()) at_ = (at_ + 1) % all_.size();
    named_.clear();
  }

  std::vector<std::string> all_;
  std::string named_;  // by another scheduler; not in the list
  size_t at_ = 0;
  std::string avoided_;
  uint32_t looks_ = 0;  // that it is avoided for
};

}  // namespace tide::sched
