#pragma once

// Where the schedulers of a pool may be: "ADDRESS:PORT", or several of them with commas between, that are tried in
// turn; one that is not the leader may say who is.

#include <string>
#include <vector>

namespace tide::sched {

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
    if (named_.empty()) at_ = (at_ + 1) % all_.size();
    named_.clear();
  }
  // The present one says that this one leads.
  void follow(const std::string& leader) {
    next();
    for (size_t i = 0; i < all_.size(); ++i) {
      if (all_[i] == leader) at_ = i;
    }
    if (all_[at_] != leader) named_ = leader;
  }

 private:
  std::vector<std::string> all_;
  std::string named_;  // by another scheduler; not in the list
  size_t at_ = 0;
};

}  // namespace tide::sched
