#pragma once

// The Pool interface of scheduler/control.capnp, over a ledger and its reconciler. One per scheduler; given to every
// connection. Errors are sentences that say cause and next step.

#include <kj/async-io.h>

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "scheduler/control.capnp.h"
#include "scheduler/election.h"
#include "scheduler/ledger.h"
#include "scheduler/pool_file.h"
#include "scheduler/reconciler.h"
#include "scheduler/recorder.h"
#include "scheduler/store.h"

namespace tide::sched {

inline constexpr uint32_t kTextBytesMax = 4096;  // of a name, a command line, ... from the wire
inline constexpr uint32_t kServerGpusMax = 64;
inline constexpr uint32_t kLiveJobsMax = 10'000;
inline constexpr uint32_t kEndedJobsShown = 200;
inline constexpr uint32_t kDeviceInfoBytesMax = 64 * 1024;
inline constexpr size_t kPieceBytes = 256u << 10;  // of a snapshot on its way
inline constexpr uint32_t kTopJobsMax = 10'000;
inline constexpr uint32_t kStopMs = 10'000;  // what `tide down` gives the agents to release everything

// What lives as long as the process, and may outlive no capability that is held by a connection.
struct PoolCore {
  Ledger ledger;
  Store& store;
  Reconciler reconciler;
  kj::Timer& timer;
  PoolFile file;
  Recorder recorder;
  std::string door_address;  // what clients are told
  uint64_t started_ms = 0;
  bool stopping = false;       // capabilities that fall now end no jobs
  std::function<void()> quit;  // asked for by shutdown()
  // Where several schedulers share a store: whether this one leads, and all of its doors; null: it is the only one.
  Election* election = nullptr;
  bool serving = true;      // it leads, and has the record
  uint64_t settles_ns = 0;  // until then servers may still be on their way from another leader

  // What a new connection is told.
  bool refuses() const { return !serving || (election != nullptr && !election->leads()); }
  std::string leader() const { return election == nullptr || election->leads() ? "" : election->leader(); }
  std::string doors() const { return election == nullptr ? door_address : election->doors(); }

  PoolCore(Store& s, kj::Timer& t) : store(s), reconciler(ledger, s, t), timer(t) {
    reconciler.record_to([this] { return recorder.on(); },
                         [this](State state, const Assignment& answer) { recorder.note(std::move(state), answer); });
  }
};

class PoolService final : public control::Pool::Server {
 public:
  explicit PoolService(PoolCore& core) : core_(core) {}

 protected:
  kj::Promise<void> submit(SubmitContext context) override;
  kj::Promise<void> reattach(ReattachContext context) override;
  kj::Promise<void> register_(RegisterContext context) override;
  kj::Promise<void> jobs(JobsContext context) override;
  kj::Promise<void> job(JobContext context) override;
  kj::Promise<void> gpus(GpusContext context) override;
  kj::Promise<void> resize(ResizeContext context) override;
  kj::Promise<void> migrate(MigrateContext context) override;
  kj::Promise<void> kill(KillContext context) override;
  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> shutdown(ShutdownContext context) override;
  kj::Promise<void> suspend(SuspendContext context) override;
  kj::Promise<void> resume(ResumeContext context) override;
  kj::Promise<void> drain(DrainContext context) override;
  kj::Promise<void> servers(ServersContext context) override;
  kj::Promise<void> configure(ConfigureContext context) override;
  kj::Promise<void> why(WhyContext context) override;
  kj::Promise<void> queues(QueuesContext context) override;
  kj::Promise<void> snapshot(SnapshotContext context) override;
  kj::Promise<void> decisions(DecisionsContext context) override;
  kj::Promise<void> report(ReportContext context) override;
  kj::Promise<void> reservations(ReservationsContext context) override;
  kj::Promise<void> top(TopContext context) override;

 private:
  struct Submission {
    Job job;
    kj::Own<kj::PromiseFulfiller<uint64_t>> fulfiller;
  };
  kj::Promise<uint64_t> kept(Job job);
  void write_submissions();

  PoolCore& core_;
  std::vector<Submission> submissions_;  // that have come, and are not written down
  kj::Promise<void> writing_ = nullptr;
};

// What SIGHUP asks for: the file counts as it is now, or nothing changes and the log says why.
void reload(PoolCore& core);

void fill_texts(capnp::List<capnp::Text>::Builder list, const std::set<std::string>& texts);
control::JobState state_of(const Job& job);
void fill_job_info(control::JobInfo::Builder info, const Job& job);
void fill_turn(control::TurnInfo::Builder info, const Job& job);
void fill_queue_info(control::QueueInfo::Builder info, const QueueState& queue);
void fill_report(control::MoveReport::Builder report, const MoveTotals& totals);
// From the wire: a job record, or why not.
Outcome read_spec(control::JobSpec::Reader spec, JobRecord* record);
Outcome read_server(control::ServerInfo::Reader info, Server* server);

}  // namespace tide::sched
