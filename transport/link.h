#pragma once

// One side's end of a channel: a region (layout.h) and what it takes to keep both sides' views of it equal.
//
// A table per transport (`shm`, `verbs`, `ucx`, `sim`); one test body runs on all. Producing and consuming
// records never goes through these functions: that is plain memory (ring.h). They are called when there is something to
// carry, to wake a sleeper, or to wait. Rules that make the tables interchangeable:
//   - a side that sleeps says so in its page (`asleep`) before it sleeps, and looks once more; who publishes calls
//     wake() only when the far page says asleep. A transport with a pump thread of its own sets its local copy of the
//     far side's `asleep` while the pump sleeps, so that a publisher wakes the pump.
//   - cursors (command_head, answer_tail, command_tail, acknowledged, answer_head) are carried without being told;
//     every other word of one's own page is carried after note(). What is published by one progress() or note() before
//     another arrives in that order: an answer's bytes before answer_head, answer_head before a later stream_progress.
//     note(next_epoch) carries next_endpoint before it. The sleepers' words (asleep, wake, doorbell) are never carried.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/outcome.h"
#include "base/threads.h"
#include "transport/arriving.h"
#include "transport/arriving_commands.h"
#include "transport/layout.h"
#include "transport/lent.h"

namespace tide {

// What a link leaves to the next one of the same client.
struct KeptRegion {
  Region region;
  uint64_t received = 0;  // bytes of commands that have come
};

class Link {
 public:
  virtual ~Link() = default;
  Region region() const { return region_; }

  // Worker side: true once the region holds the client's state; make readers and writers only then. Between hosts the
  // state arrives shortly after kOpened. Always true on the client's side.
  virtual bool ready() { return true; }
  // Moves what there is to move, never blocks; true if anything moved. Any thread; concurrent callers do not wait for
  // each other. For shm this does nothing.
  virtual bool progress() = 0;
  // A word of one's own page (not a cursor) has a new value.
  virtual void note(const Word& word) = 0;
  // Wakes the far side (or the pump). Call after publishing, when the far page's `asleep` is not 0.
  virtual void wake() = 0;
  // Sleeps until the far side publishes something or timeout_us has passed; may return early. The caller has set its
  // `asleep`, read its futex word (WorkerPage::wake in the client, ClientPage::doorbell in the worker) into `seen`, and
  // looked once more. Use wait_until (wait.h).
  virtual void sleep(uint32_t timeout_us, uint32_t seen) = 0;
  // Ends a sleep() of this side that began with `seen` read before, even one that is about to begin. For signal
  // handlers of the thread that sleeps.
  virtual void interrupt() {}
  // False once the far side is known to be gone (its process ended, the connection broke). Cheap enough to ask every
  // few milliseconds; not for hot paths.
  virtual bool alive() = 0;
  virtual const char* transport() const = 0;
  // How fast the bytes of one's own ring reach the far side, as measured (link_rate.h). 0: not known, or no path that
  // could be slow. And how many are on their way there.
  virtual uint64_t bytes_per_s() const { return 0; }
  virtual uint64_t on_the_way() const { return 0; }
  // Worker side: bytes of both rings that have come and gone, and whether a part of a command is there that cannot be
  // taken up before the rest. By the thread that consumes.
  virtual uint64_t carried() const { return 0; }
  virtual bool part_has_come() const { return false; }
  // Of the network between the two machines, as the system has measured it last. 0: not known, or there is none.
  virtual uint64_t round_trip_us() const { return 0; }
  // Whether both sides are on one machine and can map the same memory. Then a descriptor may be given to the worker,
  // once for each link, and taken there when it has come (-1: not yet; the taker owns it).
  virtual bool shares_memory() const { return false; }
  virtual bool give_descriptor(int) { return false; }
  virtual int take_descriptor() { return -1; }
  // Where each side has a copy of the rings: bytes of a record that one is about to publish may stay where they are.
  // From cursor `begin` of the own ring on, `bytes` are at `from`, unchanged until the far side has consumed them. The
  // record's header lies in the ring in any case. Worth it from kLentBytesLeast on. By one thread at a time, in the
  // order of the ring; false: the bytes have to be copied into the ring after all.
  virtual bool lends() const { return false; }
  virtual bool lend(uint64_t begin, const std::byte* from, uint64_t bytes) {
    (void)begin, (void)from, (void)bytes;
    return false;
  }
  // The client's, once: from now on the payloads of data answers go there as they come, if the link lends, and their
  // records in the ring have kAnswerLanded. `landings` outlives the link.
  virtual void land_in(Landings* landings) { (void)landings; }
  // The worker's: from the next command on the bytes of copies to the GPU go there as they come, if the link can put
  // them anywhere; null: into the ring. `landings` outlives the link, or is taken away before.
  virtual void land_commands_in(CommandLandings* landings) { (void)landings; }
  // Memory of which large pieces will be lent, in one or in many: over RDMA they then need not pass through the ring.
  // May take milliseconds the first time. forget_memory() before the memory goes, when nothing of it is lent. Any
  // thread. `written`: place_for() will be asked of it, too.
  virtual void know_memory(const std::byte* base, uint64_t bytes, bool written) {
    (void)base, (void)bytes, (void)written;
  }
  virtual void forget_memory(const std::byte* base) { (void)base; }
  // The client's: where the far side may write these bytes itself, over this connection; nowhere, if they are not of
  // memory that is known and may be written.
  virtual RemotePlace place_for(const std::byte* to, uint64_t bytes) {
    (void)to, (void)bytes;
    return {};
  }
  // The worker's: like lend(), and they go there, if it is a place of this connection; else into the ring.
  virtual bool lend_to(uint64_t begin, const std::byte* from, uint64_t bytes, const RemotePlace& to) {
    (void)to;
    return lend(begin, from, bytes);
  }
  // What was lent and is not consumed lies in the ring afterwards, for another link to carry. Nobody lends meanwhile.
  virtual void take_back() {}
  // In a forked child: closes the descriptors, so that the far side learns when the parent ends, and leaves everything
  // else alone. The link may then be forgotten, but not used or destroyed.
  virtual void abandon() = 0;
  // Nothing will go this way any more: what it has of a device (queues, locked memory) is given back at once, and what
  // was lent is not read again, though threads may still use the link, which finds itself not alive.
  virtual void release() {}
  // Whether the client may come back over another connection (Transport::resume).
  virtual bool resumes() const { return false; }
  // Once it is not alive: whether the far side closed it, as a process does that ends, or it broke or fell silent.
  virtual bool closed() { return true; }
  // Client: from now on who waits makes sure that the network is there, and it counts as broken when the far side's
  // system has left a word without an answer for so long. 0, as in the beginning: when the own system says so (2 s).
  virtual void expect_answers(uint32_t patience_ms) { (void)patience_ms; }
  // Once it is not alive: whether that is why.
  virtual bool fell_silent() { return false; }
  // Worker side, after release(): the region is the next link's from now on.
  virtual KeptRegion leave_region() { return {}; }

 protected:
  Region region_;
};

// Client side: the region exists (create_region); `lifeline` is a connected socket to the worker on which kOpen was
// sent and kOpened received with `transport_data`. The link owns the lifeline from then on and closes it when
// destroyed. Where there are two copies of the region, connect() carries all words as they are; a word that is changed
// while it runs must be noted on the new link.
using ConnectFunction =
    std::function<Outcome(Region region, int lifeline, const char* transport_data, std::unique_ptr<Link>* link)>;

// Worker side: `lifeline` is the client's socket; `region_fd` the memfd that came with kOpen, or -1. On success
// *transport_data is what the client's connect needs (sent in kOpened by the caller). The accept must not wait for the
// client: the link may come alive after kOpened. The link owns both descriptors. On failure, of either function, the
// caller keeps its descriptors.
using AcceptFunction =
    std::function<Outcome(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link)>;

// Worker side: like accept, for a client whose connection broke, with what was before. Over any transport that has it.
using ResumeFunction = std::function<Outcome(const KeptRegion& kept, int lifeline, std::string* transport_data,
                                             std::unique_ptr<Link>* link)>;

struct Transport {
  const char* name;
  bool same_host;  // needs both sides on one host, and the memfd
  ConnectFunction connect;
  AcceptFunction accept;
  // May be null. Does early, on a thread beside the caller's, what a process's first connect or accept would spend its
  // time on; says nothing where it fails, since they will.
  std::function<void()> prepare = {};
  ResumeFunction resume = {};  // null where both sides share memory: it breaks when one of them ends
};

// Runs prepare() for as long as it lives, at least; where the system has no thread for that, connect or accept does it.
class Preparation {
 public:
  explicit Preparation(const Transport& transport);
  ~Preparation();

 private:
  Thread thread_;
};

// By name ("shm", "verbs", "ucx", "sim"; "sim:rtt_us=100,gbit=10,..." gives sim its settings; "fastest" is verbs or
// ucx, as measured at connect); null when there is none. The result lives as long as the process.
const Transport* find_transport(const char* name);
// What a client asks for where nobody named a transport and the worker is on another machine: "fastest" where this
// machine has an RDMA port, else "ucx".
const char* transport_between_hosts();

// Opens and maps a new region of the client (memfd, zeroed, sealed against shrinking); returns its descriptor or -1.
Outcome create_region(int* fd, Region* region);
void destroy_region(int fd, Region region);

}  // namespace tide
