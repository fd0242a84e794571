#pragma once

// The store in etcd (3.4 or newer), for several schedulers: spoken to through the JSON gateway of its members, by
// etcd_line.h. A call that finds no member within two seconds fails, and so do those after it for a second, without
// waiting.

#include <memory>

#include "scheduler/etcd_place.h"
#include "scheduler/kv.h"

namespace tide::sched {

class EtcdLine;

class EtcdKv final : public Kv {
 public:
  // Asks nothing yet.
  explicit EtcdKv(const EtcdPlace& place);
  ~EtcdKv() override;

  const std::string& name() const override { return name_; }
  Outcome commit(const Transaction& transaction, Committed* committed) override;
  Outcome range(const Range& range, std::vector<Entry>* entries) override;
  Outcome grant(uint32_t ttl_ms, uint64_t* lease) override;
  Outcome renew(uint64_t lease, bool* alive) override;
  Outcome revoke(uint64_t lease) override;
  std::unique_ptr<Watch> watch(const Range& range) override;
  Outcome compact(uint64_t revision) override;
  uint32_t tries() const override { return 2; }

 private:
  struct Json;
  enum class Ask : uint8_t { kOnce, kAgain };
  // Fills `answer` from what came; `status` that of HTTP: 404 where there is no such lease.
  template <typename Question, typename Answer>
  Outcome ask(const char* path, const Question& question, Ask how, Answer&& answer, uint32_t* status = nullptr);

  const std::string name_;
  std::unique_ptr<Json> json_;
  std::unique_ptr<EtcdLine> line_;
  uint32_t failures_ = 0;  // in a row
  uint64_t again_ns_ = 0;  // until then nobody is asked, after some
  std::string why_;
};

}  // namespace tide::sched
