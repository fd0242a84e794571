// Several channels, one for each rail, as one: a message goes whole over the rail with the fewest under way, so that a
// faster rail carries more.

#include <algorithm>

#include "tools/rdma_bench/fields.h"
#include "tools/rdma_bench/path.h"

namespace tide::fabric {
namespace {

struct Offers {
  std::vector<std::string> each;
  template <class F>
  void fields(F& f) {
    f("each", each);
  }
};

class RailsChannel : public Channel {
 public:
  explicit RailsChannel(std::vector<std::unique_ptr<Channel>> rails) : rails_(std::move(rails)) {}

  Outcome offer(std::string* how) override {
    Offers offers;
    for (const auto& rail : rails_) {
      const Outcome outcome = rail->offer(&offers.each.emplace_back());
      if (!outcome.ok()) return outcome;
    }
    *how = pack(offers);
    return {};
  }

  Outcome join(const std::string& how) override {
    Offers offers;
    if (!unpack(how, &offers) || offers.each.size() != rails_.size()) {
      return Outcome::fail("the other side's rails are not understood");
    }
    for (size_t i = 0; i < rails_.size(); ++i) {
      const Outcome outcome = rails_[i]->join(offers.each[i]);
      if (!outcome.ok()) return outcome;
    }
    return {};
  }

  bool post() override {
    const auto under_way = [](const auto& rail) { return rail->posted() - rail->sent(); };
    std::sort(order_.begin(), order_.end(), [&](Channel* a, Channel* b) { return under_way(a) < under_way(b); });
    const bool posted = std::any_of(order_.begin(), order_.end(), [](Channel* rail) { return rail->post(); });
    count();
    return posted;
  }

  void progress() override {
    for (const auto& rail : rails_) rail->progress();
    count();
  }

  Facts facts() override {
    Facts all;
    for (const auto& rail : rails_) {
      const Facts one = rail->facts();
      all.route += (all.route.empty() ? "" : " and ") + one.route;
      all.segments += one.segments;
      all.retransmits += one.retransmits;
    }
    return all;
  }

 protected:
  Outcome resize(uint64_t bytes) override {
    order_.clear();
    for (const auto& rail : rails_) {
      const Outcome outcome = rail->set_bytes(bytes);
      if (!outcome.ok()) return outcome;
      order_.push_back(rail.get());
    }
    return {};
  }

 private:
  void count() {
    posted_ = sent_ = received_ = 0;
    for (const auto& rail : rails_) {
      posted_ += rail->posted();
      sent_ += rail->sent();
      received_ += rail->received();
      if (!rail->failure().empty()) fail(rail->failure());
    }
  }

  std::vector<std::unique_ptr<Channel>> rails_;
  std::vector<Channel*> order_;
};

}  // namespace

std::unique_ptr<Channel> make_channel(const PathKind& kind, const Control& control,
                                      const std::vector<std::string>& devices) {
  if (devices.size() < 2 || kind.transport != nullptr) return kind.make({kind, control, devices});
  std::vector<std::unique_ptr<Channel>> rails;
  for (const std::string& device : devices) rails.push_back(kind.make({kind, control, {device}}));
  return std::make_unique<RailsChannel>(std::move(rails));
}

}  // namespace tide::fabric
