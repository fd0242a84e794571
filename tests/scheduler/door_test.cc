// The scheduler's two ports, spoken to by clients, strangers and noise.

#include "transport/door.h"

#include <string.h>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Doors : public PoolFixture {
 protected:
  kj::Own<kj::AsyncIoStream> connect(const std::string& address) {
    return io_.provider->getNetwork().parseAddress(address.c_str()).wait(io_.waitScope)->connect().wait(io_.waitScope);
  }
  void send(kj::AsyncIoStream& stream, const std::string& bytes) {
    // The far side may close while we still write.
    kj::runCatchingExceptions([&] { stream.write(bytes.data(), bytes.size()).wait(io_.waitScope); });
  }
  static std::string frame(DoorType type, const std::string& payload) {
    DoorHeader header;
    header.type = uint16_t(type);
    header.payload_bytes = uint32_t(payload.size());
    return std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload;
  }
  static std::string hello(const std::string& job, const std::string& token) {
    DoorHello hello;
    memcpy(hello.job, job.data(), std::min(job.size(), sizeof hello.job));
    memcpy(hello.token, token.data(), std::min(token.size(), sizeof hello.token));
    return frame(DoorType::kHello, std::string(reinterpret_cast<const char*>(&hello), sizeof hello));
  }
  // The next frame; kRefused with an empty payload when there is none.
  std::pair<DoorType, std::string> receive(kj::AsyncIoStream& stream) {
    DoorHeader header;
    size_t got = 0;
    auto limited =
        io_.provider->getTimer().timeoutAfter(10 * kj::SECONDS, stream.tryRead(&header, sizeof header, sizeof header));
    kj::runCatchingExceptions([&] { got = limited.wait(io_.waitScope); });
    if (got != sizeof header) return {DoorType::kRefused, ""};
    std::string payload(header.payload_bytes, 0);
    stream.tryRead(payload.data(), payload.size(), payload.size()).wait(io_.waitScope);
    return {DoorType(header.type), payload};
  }
  std::string refusal(const std::string& payload) {
    DoorRefused refused;
    if (payload.size() != sizeof refused) return "";
    memcpy(&refused, payload.data(), sizeof refused);
    return refused.message;
  }
};

TEST_F(Doors, a_client_with_the_token_learns_where_its_vgpus_are) {
  add_server("node0", 2);
  const Submitted job = run(2);
  auto stream = connect(job.door);
  send(*stream, hello(job.id, job.token));
  const auto [type, payload] = receive(*stream);
  ASSERT_EQ(type, DoorType::kJob);
  DoorJob answer;
  DoorVgpu vgpu;
  const std::string info = "device info";
  ASSERT_EQ(payload.size(), sizeof answer + 2 * (sizeof vgpu + info.size()));
  memcpy(&answer, payload.data(), sizeof answer);
  memcpy(&vgpu, payload.data() + sizeof answer, sizeof vgpu);
  EXPECT_EQ(answer.vgpu_count, 2u);
  EXPECT_EQ(vgpu.epoch, 1u);
  EXPECT_EQ(vgpu.memory_bytes, 16u);
  EXPECT_STREQ(vgpu.endpoint, "host=test;unix=/nowhere/node0;tcp=127.0.0.1:1");
  EXPECT_EQ(payload.substr(sizeof answer + sizeof vgpu, info.size()), info);

  MoveTotals totals;
  EXPECT_EQ(resize(job.id, 1, &totals), "");
  DoorWhere where{.vgpu = 1};
  send(*stream, frame(DoorType::kWhere, std::string(reinterpret_cast<const char*>(&where), sizeof where)));
  const auto [second, text] = receive(*stream);
  ASSERT_EQ(second, DoorType::kPlace);
  DoorPlace place;
  ASSERT_EQ(text.size(), sizeof place);
  memcpy(&place, text.data(), sizeof place);
  EXPECT_EQ(place.vgpu, 1u);
  EXPECT_EQ(place.epoch, 2u);
}

TEST_F(Doors, nobody_gets_in_without_the_token) {
  add_server("node0", 1);
  const Submitted job = run(1);
  std::string wrong = job.token;
  wrong[31] = char(wrong[31] ^ 1);
  for (const auto& [id, token] :
       {std::pair(job.id, wrong), std::pair(std::string("99"), job.token), std::pair(std::string(), job.token)}) {
    auto stream = connect(job.door);
    send(*stream, hello(id, token));
    const auto [type, payload] = receive(*stream);
    EXPECT_EQ(type, DoorType::kRefused);
    EXPECT_NE(refusal(payload).find("with this token"), std::string::npos) << refusal(payload);
  }
}

TEST_F(Doors, a_job_that_waits_is_told_so) {
  add_server("node0", 1);
  const Submitted first = run(1);
  Submitted second;
  EXPECT_EQ(submit(1, 1, &second), "");
  auto stream = connect(second.door);
  send(*stream, hello(second.id, second.token));
  EXPECT_EQ(refusal(receive(*stream).second), "job 2 does not run yet; `tide why 2` says why");
}

TEST_F(Doors, a_where_for_no_vgpu_of_the_job_is_refused) {
  add_server("node0", 1);
  const Submitted job = run(1);
  auto stream = connect(job.door);
  send(*stream, hello(job.id, job.token));
  ASSERT_EQ(receive(*stream).first, DoorType::kJob);
  const DoorWhere where{.vgpu = 7};
  send(*stream, frame(DoorType::kWhere, std::string(reinterpret_cast<const char*>(&where), sizeof where)));
  EXPECT_EQ(refusal(receive(*stream).second), "the job has no such virtual GPU");
}

TEST_F(Doors, a_client_learns_what_its_vgpus_do_as_often_as_it_asks) {
  add_server("node0", 2);
  const Submitted job = run(2);
  auto stream = connect(job.door);
  send(*stream, hello(job.id, job.token));
  ASSERT_EQ(receive(*stream).first, DoorType::kJob);
  for (int i = 0; i < 2; ++i) {
    send(*stream, frame(DoorType::kMeasure, ""));
    const auto [type, payload] = receive(*stream);
    ASSERT_EQ(type, DoorType::kUsage);
    DoorUsage counts;
    DoorVgpuUsage vgpus[2];
    DoorClientUsage clients[2];
    ASSERT_EQ(payload.size(), sizeof counts + sizeof vgpus + sizeof clients);
    memcpy(&counts, payload.data(), sizeof counts);
    memcpy(vgpus, payload.data() + sizeof counts, sizeof vgpus);
    memcpy(clients, payload.data() + sizeof counts + sizeof vgpus, sizeof clients);
    EXPECT_EQ(counts.vgpu_count, 2u);
    EXPECT_EQ(counts.client_count, 2u);
    EXPECT_EQ(vgpus[1].resident_bytes, 1001u);
    EXPECT_EQ(vgpus[1].busy_permille, 250u);
    EXPECT_EQ(vgpus[1].known, 1u);
    EXPECT_EQ(clients[1].vgpu, 1u);
    EXPECT_EQ(clients[1].pid, 71u);
    EXPECT_EQ(clients[1].resident_bytes, 1001u);
  }
  send(*stream, frame(DoorType::kMeasure, "why"));
  EXPECT_EQ(refusal(receive(*stream).second), "only kWhere and kMeasure are understood here");
}

TEST_F(Doors, noise_on_either_port_has_no_effect) {
  add_server("node0", 1);
  const Submitted job = run(1);
  uint64_t dice = 7;
  const auto noise = [&](size_t bytes) {
    std::string text(bytes, 0);
    for (char& c : text) {
      dice = dice * 6364136223846793005ull + 1442695040888963407ull;
      c = char(dice >> 56);
    }
    return text;
  };
  DoorHeader huge;
  huge.type = uint16_t(DoorType::kHello);
  huge.payload_bytes = 1u << 30;
  std::string unterminated(sizeof(DoorHello), 'x');
  const std::vector<std::string> said = {"",
                                         std::string(16, '\0'),
                                         "GET / HTTP/1.0\r\n\r\n",
                                         noise(40),
                                         noise(70'000),
                                         std::string(reinterpret_cast<const char*>(&huge), sizeof huge) + noise(1000),
                                         frame(DoorType::kHello, unterminated),
                                         frame(DoorType::kWhere, std::string(8, '\0')),
                                         frame(DoorType::kHello, ""),
                                         frame(DoorType(999), "abc"),
                                         std::string("\xff\xff\xff\x7f\xff\xff\xff\x7f", 8) + noise(64)};
  for (const std::string& address : {job.door, daemon_->address()}) {
    for (const std::string& bytes : said) {
      auto stream = connect(address);
      send(*stream, bytes);
      kj::runCatchingExceptions([&] { stream->shutdownWrite(); });
      // It is closed, sooner or later; no answer may keep us.
      while (!receive(*stream).second.empty()) {
      }
    }
  }
  EXPECT_EQ(describe(job.id), "running on node0/0");
  auto stream = connect(job.door);
  send(*stream, hello(job.id, job.token));
  EXPECT_EQ(receive(*stream).first, DoorType::kJob);
}

}  // namespace
}  // namespace tide::sched
