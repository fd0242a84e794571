#include "scheduler/kv_etcd.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>

#include <atomic>

#include "base/clock.h"
#include "scheduler/etcd.capnp.h"
#include "scheduler/etcd_line.h"

namespace tide::sched {
namespace {

constexpr uint64_t kPauseNs = 1'000'000'000;
constexpr uint32_t kFailuresBeforePause = 2;

std::string text_of(capnp::Data::Reader data) { return {reinterpret_cast<const char*>(data.begin()), data.size()}; }
capnp::Data::Reader data_of(const std::string& bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}

std::string name_of(const EtcdPlace& place) {
  std::string text = "etcd://";
  for (const std::string& member : place.members) text += (text.back() == '/' ? "" : ",") + member;
  return text;
}

void fill(const Compare& compare, etcd::Compare::Builder out) {
  const bool created = compare.what == Compare::What::kCreated;
  out.setResult("EQUAL");
  out.setTarget(created ? "CREATE" : "MOD");
  out.setKey(data_of(compare.key));
  if (created) {
    out.setCreateRevision(compare.revision);
  } else {
    out.setModRevision(compare.revision);
  }
}

void fill(const Change& change, etcd::RequestOp::Builder out) {
  if (!change.value) return out.initRequestDeleteRange().setKey(data_of(change.key));
  auto put = out.initRequestPut();
  put.setKey(data_of(change.key));
  put.setValue(data_of(*change.value));
  put.setLease(change.lease);
}

class EtcdWatch final : public Watch {
 public:
  explicit EtcdWatch(std::shared_ptr<std::atomic<bool>> flag) : flag_(std::move(flag)) {}
  bool changed() override { return flag_->exchange(false); }

 private:
  std::shared_ptr<std::atomic<bool>> flag_;
};

}  // namespace

struct EtcdKv::Json {
  capnp::JsonCodec codec;
  Json() {
    codec.handleByAnnotation<etcd::RangeRequest>();
    codec.handleByAnnotation<etcd::RangeResponse>();
    codec.handleByAnnotation<etcd::TxnRequest>();
    codec.handleByAnnotation<etcd::TxnResponse>();
    codec.handleByAnnotation<etcd::LeaseRequest>();
    codec.handleByAnnotation<etcd::LeaseRef>();
    codec.handleByAnnotation<etcd::LeaseState>();
    codec.handleByAnnotation<etcd::KeepAliveResponse>();
    codec.handleByAnnotation<etcd::CompactionRequest>();
    codec.handleByAnnotation<etcd::WatchRequest>();
    codec.handleByAnnotation<etcd::Failure>();
  }
};

EtcdKv::EtcdKv(const EtcdPlace& place)
    : name_(name_of(place)), json_(std::make_unique<Json>()), line_(std::make_unique<EtcdLine>(place.members)) {}

EtcdKv::~EtcdKv() = default;

template <typename Question, typename Answer>
Outcome EtcdKv::ask(const char* path, const Question& question, Ask how, Answer&& answer, uint32_t* status) {
  const auto failed = [this](const std::string& why) {
    return Outcome::fail("the record of jobs, " + name_ + ", does not answer (" + why +
                         "); is a majority of its members up? What is under way is tried again");
  };
  if (failures_ >= kFailuresBeforePause && now_ns() < again_ns_) return failed(why_);
  EtcdLine::Answer got;
  const kj::String text = json_->codec.encode(question);
  const Outcome posted = line_->post(path, {text.begin(), text.size()}, how == Ask::kOnce, &got);
  failures_ = posted.ok() ? 0 : failures_ + 1;
  again_ns_ = now_ns() + kPauseNs;
  why_ = posted.message();
  if (!posted.ok()) return failed(why_);
  std::string why;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 capnp::MallocMessageBuilder message;
                 const kj::ArrayPtr<const char> body(got.body.data(), got.body.size());
                 if (got.status != 200) {
                   auto failure = message.initRoot<etcd::Failure>();
                   json_->codec.decode(body, failure);
                   why = failure.getError().cStr();
                   if (why.empty()) why = "it answers with status " + std::to_string(got.status);
                 } else {
                   answer(json_->codec, body, message);
                 }
               })) {
    why = std::string("what it says makes no sense: ") + exception->getDescription().cStr();
  }
  if (status != nullptr) *status = got.status;
  return why.empty() ? Outcome() : Outcome::fail("the record of jobs, " + name_ + ", refuses: " + why);
}

Outcome EtcdKv::commit(const Transaction& transaction, Committed* committed) {
  capnp::MallocMessageBuilder message;
  auto txn = message.initRoot<etcd::TxnRequest>();
  auto compares = txn.initCompare(uint32_t(transaction.compares.size()));
  for (uint32_t i = 0; i < compares.size(); ++i) fill(transaction.compares[i], compares[i]);
  auto changes = txn.initSuccess(uint32_t(transaction.changes.size()));
  for (uint32_t i = 0; i < changes.size(); ++i) fill(transaction.changes[i], changes[i]);
  return ask("/v3/kv/txn", txn.asReader(), Ask::kOnce, [&](auto& codec, auto body, auto& into) {
    auto answer = into.template initRoot<etcd::TxnResponse>();
    codec.decode(body, answer);
    const bool done = answer.getSucceeded();
    *committed = {.done = done, .revision = done ? answer.getHeader().getRevision() : 0};
  });
}

Outcome EtcdKv::range(const Range& range, std::vector<Entry>* entries) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<etcd::RangeRequest>();
  request.setKey(data_of(range.from));
  request.setRangeEnd(data_of(range.to));
  request.setLimit(range.limit);
  request.setSortOrder(range.last_first ? "DESCEND" : "ASCEND");
  request.setSortTarget("KEY");
  return ask("/v3/kv/range", request.asReader(), Ask::kAgain, [&](auto& codec, auto body, auto& into) {
    auto answer = into.template initRoot<etcd::RangeResponse>();
    codec.decode(body, answer);
    std::vector<Entry> found;
    for (const auto kv : answer.asReader().getKvs()) {
      found.push_back({.key = text_of(kv.getKey()),
                       .value = text_of(kv.getValue()),
                       .created = kv.getCreateRevision(),
                       .modified = kv.getModRevision(),
                       .lease = kv.getLease()});
    }
    *entries = std::move(found);
  });
}

Outcome EtcdKv::grant(uint32_t ttl_ms, uint64_t* lease) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<etcd::LeaseRequest>();
  request.setTtl((ttl_ms + 999) / 1000);
  return ask("/v3/lease/grant", request.asReader(), Ask::kAgain, [&](auto& codec, auto body, auto& into) {
    auto answer = into.template initRoot<etcd::LeaseState>();
    codec.decode(body, answer);
    *lease = answer.getId();
  });
}

Outcome EtcdKv::renew(uint64_t lease, bool* alive) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<etcd::LeaseRef>();
  request.setId(lease);
  return ask("/v3/lease/keepalive", request.asReader(), Ask::kAgain, [&](auto& codec, auto body, auto& into) {
    auto answer = into.template initRoot<etcd::KeepAliveResponse>();
    codec.decode(body, answer);
    *alive = answer.getResult().getTtl() != 0;
  });
}

Outcome EtcdKv::revoke(uint64_t lease) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<etcd::LeaseRef>();
  request.setId(lease);
  uint32_t status = 0;
  const Outcome outcome = ask(
      "/v3/lease/revoke", request.asReader(), Ask::kAgain, [](auto&, auto, auto&) {}, &status);
  return status == 404 ? Outcome() : outcome;
}

Outcome EtcdKv::compact(uint64_t revision) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<etcd::CompactionRequest>();
  request.setRevision(revision);
  return ask("/v3/kv/compaction", request.asReader(), Ask::kAgain, [](auto&, auto, auto&) {});
}

std::unique_ptr<Watch> EtcdKv::watch(const Range& range) {
  capnp::MallocMessageBuilder message;
  auto request = message.initRoot<etcd::WatchRequest>();
  auto keys = request.initCreateRequest();
  keys.setKey(data_of(range.from));
  keys.setRangeEnd(data_of(range.to));
  const kj::String text = json_->codec.encode(request.asReader());
  return std::make_unique<EtcdWatch>(line_->watch("/v3/watch", {text.begin(), text.size()}));
}

}  // namespace tide::sched
