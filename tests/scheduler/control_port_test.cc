// The control port, spoken to by other versions, by noise, and by who says nothing.

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class ControlPort : public PoolFixture {
 protected:
  kj::Own<kj::AsyncIoStream> connect() {
    auto address = io_.provider->getNetwork().parseAddress(daemon_->address().c_str()).wait(io_.waitScope);
    return address->connect().wait(io_.waitScope);
  }
  // What the scheduler says of a first question asked in that version.
  std::string refusal(control::Caller caller, uint32_t version) {
    auto stream = connect();
    capnp::TwoPartyClient client(*stream);
    return error_of(enter(client, caller, version).statusRequest().send().ignoreResult());
  }
  // How long until the scheduler has closed it, in ms; 60'000: it has not within `limit_ms`.
  uint32_t closed_after(kj::AsyncIoStream& stream, uint32_t limit_ms) {
    const uint64_t begin = now_ns();
    char byte;
    auto end = stream.tryRead(&byte, 1, 1).ignoreResult().catch_([](kj::Exception&&) {});
    auto over = io_.provider->getTimer().afterDelay(limit_ms * kj::MILLISECONDS);
    bool in_time = false;
    end.then([&in_time] { in_time = true; }).exclusiveJoin(kj::mv(over)).wait(io_.waitScope);
    return in_time ? uint32_t((now_ns() - begin) / 1'000'000) : 60'000;
  }
  // Written as far as the scheduler takes it.
  uint32_t closed_after_saying(const std::string& bytes) {
    auto stream = connect();
    auto said = stream->write(bytes.data(), bytes.size()).catch_([](kj::Exception&&) {});
    return closed_after(*stream, 2'000);
  }
  static std::string frame_of(std::vector<uint32_t> words) {
    return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint32_t)};
  }
  void expect_served() { EXPECT_EQ(error_of(peer_->pool.statusRequest().send().ignoreResult()), ""); }
};

TEST_F(ControlPort, another_version_is_told_both_and_whom_to_update) {
  const uint32_t ours = control::PROTOCOL;
  const auto differs = [&](const char* caller, uint32_t theirs, const char* update) {
    return format(
        "%s speaks version %u of Tidepool's control protocol, the scheduler version %u: update %s, so that "
        "both are of one release",
        caller, theirs, ours, update);
  };
  EXPECT_EQ(refusal(control::Caller::TIDE, ours - 1), differs("this tide", ours - 1, "this tide"));
  EXPECT_EQ(refusal(control::Caller::TIDE, ours + 1), differs("this tide", ours + 1, "the scheduler"));
  EXPECT_EQ(refusal(control::Caller::AGENT, ours - 1), differs("this agent", ours - 1, "this agent"));
  EXPECT_EQ(refusal(control::Caller::AGENT, ours + 1), differs("this agent", ours + 1, "the scheduler"));
  EXPECT_EQ(refusal(control::Caller::TIDE, 0), differs("this tide", 0, "this tide"));
  EXPECT_EQ(refusal(control::Caller::TIDE, ours), "");
  EXPECT_EQ(refusal(control::Caller(77), ours), "") << "who calls is only for the message";
}

TEST_F(ControlPort, a_caller_from_before_there_were_versions_is_told_so) {
  auto stream = connect();
  capnp::TwoPartyClient client(*stream);
  const std::string said = error_of(client.bootstrap().castAs<control::Pool>().statusRequest().send().ignoreResult());
  EXPECT_EQ(said,
            format("this program speaks version 1 of Tidepool's control protocol, the scheduler version %u: update "
                   "this program, so that both are of one release",
                   control::PROTOCOL));
}

class OldPool final : public control::Pool::Server {};

TEST_F(ControlPort, a_scheduler_from_before_there_were_versions_is_to_be_updated) {
  auto ends = io_.provider->newTwoWayPipe();
  capnp::TwoPartyServer scheduler(kj::heap<OldPool>());
  scheduler.accept(kj::mv(ends.ends[0]));
  capnp::TwoPartyClient client(*ends.ends[1]);
  const std::string said = error_of(enter(client, control::Caller::TIDE).statusRequest().send().ignoreResult());
  EXPECT_EQ(said,
            format("the scheduler speaks version 1 of Tidepool's control protocol, this side version %u: update the "
                   "scheduler, so that both are of one release",
                   control::PROTOCOL));
}

TEST_F(ControlPort, what_is_no_message_ends_the_connection_at_once) {
  const std::vector<std::pair<const char*, std::string>> frames = {
      {"one segment of 4 GiB", frame_of({0, 0x20000000, 1, 2, 3, 4})},
      {"of 32 GiB", frame_of({0, 0xffffffff, 1, 2, 3, 4})},
      {"half a million segments", frame_of({0x7ffff, 1, 1, 1})},
      {"four thousand million segments", frame_of({0xffffffff, 1, 1, 1})},
      {"more than is heard of a stranger", frame_of({0, uint32_t(kMessageWordsMax) + 1, 1, 2})},
      {"HTTP", "GET / HTTP/1.1\r\nHost: pool\r\n\r\n"},
      {"a door's frame", std::string("door\3\0\5\0\0\0\0\0\0\0\0\0", 16)},
      {"no message inside", frame_of({0, 2, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff})},
      {"a list beyond its segment", frame_of({0, 1, 0x00000401, 0xffffffff})},
  };
  for (const auto& [name, bytes] : frames) EXPECT_LT(closed_after_saying(bytes), 1'000u) << name;
  expect_served();
}

TEST_F(ControlPort, who_has_entered_may_not_say_more_either) {
  Peer other(io_, daemon_->address());
  EXPECT_EQ(error_of(other.pool.statusRequest().send().ignoreResult()), "");
  auto request = other.pool.submitRequest();
  request.getSpec().setGpus(1);
  request.getSpec().setCommand(std::string(100'000, 'x'));
  EXPECT_NE(error_of(request.send().ignoreResult()), "");
  EXPECT_LT(closed_after(*other.stream, 2'000), 1'000u);
  expect_served();
}

TEST_F(ControlPort, an_agent_with_much_to_say_is_heard) {
  agents_.push_back(std::make_unique<Peer>(io_, daemon_->address(), control::Caller::AGENT));
  Peer& agent = *agents_.back();
  EXPECT_EQ(error_of(agent.pool.whenResolved()), "");
  auto request = agent.pool.registerRequest();
  fill_server_info(request.initServer(), "large", kServerGpusMax, 16);
  for (auto gpu : request.getServer().getGpus()) gpu.initDeviceInfo(16 * 1024);
  request.setAgent(make_fake_agent("large", log_, io_.provider->getTimer()));
  EXPECT_EQ(error_of(request.send().ignoreResult()), "");
}

TEST_F(ControlPort, silence_keeps_nobody_out_and_has_an_end) {
  add_server("node0", 1);
  const Submitted job = run(1);
  std::vector<kj::Own<kj::AsyncIoStream>> silent;
  for (uint32_t i = 0; i < kPortStrangersMax + 100; ++i) {
    silent.push_back(connect());
    if (i % 3 == 1) silent.back()->write("\0\0\0", 3).wait(io_.waitScope);
  }
  EXPECT_LT(closed_after(*silent.front(), 1'000), 1'000u) << "the first made room for the last";
  const uint64_t begin = now_ns();
  Peer real(io_, daemon_->address());
  EXPECT_EQ(error_of(real.pool.statusRequest().send().ignoreResult()), "");
  EXPECT_LT(now_ns() - begin, 1'000'000'000u);
  EXPECT_LT(closed_after(*silent.back(), kPortSpeakMs + 3'000), kPortSpeakMs + 2'000);
  EXPECT_EQ(describe(job.id), "running on node0/0");
}

// As many as there may be.
class NoDescriptors {
 public:
  NoDescriptors() {
    while (taken_.size() < 100'000) {
      const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
      if (fd < 0) break;
      taken_.push_back(fd);
    }
  }
  ~NoDescriptors() {
    for (const int fd : taken_) close(fd);
  }

 private:
  std::vector<int> taken_;
};

TEST_F(ControlPort, without_descriptors_who_comes_waits_and_is_served_later) {
  expect_served();  // over a connection that is there before
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit small{std::min<rlim_t>(before.rlim_cur, 256), before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &small);
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(std::stoi(daemon_->address().substr(daemon_->address().rfind(':') + 1))));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  {
    const NoDescriptors none;
    ASSERT_EQ(::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    pause(250);
    expect_served();
  }
  pause(250);
  setrlimit(RLIMIT_NOFILE, &before);
  auto stream = io_.lowLevelProvider->wrapSocketFd(socket, kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
  capnp::TwoPartyClient client(*stream);
  EXPECT_EQ(error_of(enter(client, control::Caller::TIDE).statusRequest().send().ignoreResult()), "");
  EXPECT_EQ(refusal(control::Caller::TIDE, control::PROTOCOL), "");
}

}  // namespace
}  // namespace tide::sched
