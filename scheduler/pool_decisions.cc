// `tide snapshot` and `tide why --history`: what was decided, from the journal.

#include <algorithm>

#include "scheduler/pool_service.h"
#include "scheduler/remote_error.h"

namespace tide::sched {
namespace {

class PiecesServer final : public control::Pieces::Server {
 public:
  explicit PiecesServer(std::string bytes) : bytes_(std::move(bytes)) {}

 protected:
  kj::Promise<void> next(NextContext context) override {
    const size_t size = std::min(kPieceBytes, bytes_.size() - at_);
    context.getResults().setPiece(kj::arrayPtr(reinterpret_cast<const kj::byte*>(bytes_.data()) + at_, size));
    at_ += size;
    return kj::READY_NOW;
  }

 private:
  const std::string bytes_;
  size_t at_ = 0;
};

void fill_journal(control::JournalInfo::Builder out, const JournalStatus& status) {
  out.setDirectory(status.directory);
  out.setFirst(status.first);
  out.setLast(status.last);
  out.setBytes(status.bytes);
  out.setBytesMax(status.bytes_max);
  out.setLeftOut(status.left_out);
  out.setProblem(status.problem);
}

}  // namespace

kj::Promise<void> PoolService::snapshot(SnapshotContext context) {
  const auto params = context.getParams();
  if (params.getNow()) {
    context.getResults().setPieces(kj::heap<PiecesServer>(Recorder::file_of(core_.reconciler.look())));
    return kj::READY_NOW;
  }
  return core_.recorder.fetch({.number = params.getNumber(), .at_ms = params.getAtMs()})
      .then([context](std::string&& bytes) mutable {
        context.getResults().setPieces(kj::heap<PiecesServer>(std::move(bytes)));
      });
}

kj::Promise<void> PoolService::decisions(DecisionsContext context) {
  const std::string name = context.getParams().getJob().cStr();
  if (name.empty()) {
    fill_journal(context.getResults().initJournal(), core_.recorder.status());
    return kj::READY_NOW;
  }
  const Job* live = core_.ledger.find(name);
  std::string id = live != nullptr ? live->record.id() : "";
  if (id.empty()) {
    auto record = core_.store.find(parse_number(name));
    if (!record) record = core_.store.find_named(name);
    if (!record) return error_for_caller("there is no job " + name + "; `tide jobs --ended` lists them");
    id = record->id();
  }
  return core_.recorder.about(id).then([this, context](std::vector<JobDecision>&& all) mutable {
    auto list = context.getResults().initDecisions(uint32_t(all.size()));
    for (uint32_t i = 0; i < list.size(); ++i) {
      list[i].setNumber(all[i].number);
      list[i].setAtMs(all[i].at_ms);
      list[i].setWhat(what_of(all[i].decided));
      list[i].setReason(all[i].decided.decision.reason);
    }
    fill_journal(context.getResults().initJournal(), core_.recorder.status());
  });
}

}  // namespace tide::sched
