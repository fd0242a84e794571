#include "transport/door.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "tests/transport/loopback.h"
#include "tests/transport/peer.h"
#include "transport/link.h"
#include "transport/region.h"

namespace tide {
namespace {

class DoorTest : public testing::Test {
 protected:
  DoorTest() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0); }
  ~DoorTest() override {
    for (int fd : pair) {
      if (fd >= 0) close(fd);
    }
  }
  Outcome receive_raw(const void* bytes, size_t n) {
    EXPECT_EQ(write(pair[0], bytes, n), ssize_t(n));
    shutdown(pair[0], SHUT_WR);
    DoorType type;
    std::string payload;
    return receive_frame(pair[1], 1000, &type, &payload);
  }

  int pair[2] = {-1, -1};
};

int open_descriptors() {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

TEST_F(DoorTest, a_frame_arrives_whole) {
  DoorHello hello;
  ASSERT_TRUE(set_text(hello.job, "job-1"));
  hello.pid = 42;
  ASSERT_TRUE(send_frame(pair[0], DoorType::kHello, &hello, sizeof hello).ok());
  DoorType type;
  std::string payload;
  ASSERT_TRUE(receive_frame(pair[1], 1000, &type, &payload).ok());
  EXPECT_EQ(type, DoorType::kHello);
  ASSERT_EQ(payload.size(), sizeof hello);
  EXPECT_EQ(memcmp(payload.data(), &hello, sizeof hello), 0);
}

TEST_F(DoorTest, the_largest_frame_passes_a_socket_that_holds_less) {
  std::string sent(kDoorPayloadMax, '\0');
  peer::fill(peer::Numbers{1}, reinterpret_cast<unsigned char*>(sent.data()), sent.size());
  std::thread sender([&] { EXPECT_TRUE(send_frame(pair[0], DoorType::kJob, sent.data(), sent.size()).ok()); });
  DoorType type;
  std::string payload;
  EXPECT_TRUE(receive_frame(pair[1], 5000, &type, &payload).ok());
  sender.join();
  EXPECT_TRUE(payload == sent);
  EXPECT_FALSE(send_frame(pair[0], DoorType::kJob, sent.data(), kDoorPayloadMax + 1).ok());
}

TEST_F(DoorTest, two_frames_in_a_row_stay_two) {
  ASSERT_TRUE(send_frame(pair[0], DoorType::kWhere, "ab", 2).ok());
  ASSERT_TRUE(send_frame(pair[0], DoorType::kPlace, "c", 1).ok());
  DoorType type;
  std::string payload;
  ASSERT_TRUE(receive_frame(pair[1], 1000, &type, &payload).ok());
  EXPECT_EQ(payload, "ab");
  ASSERT_TRUE(receive_frame(pair[1], 1000, &type, &payload).ok());
  EXPECT_EQ(type, DoorType::kPlace);
  EXPECT_EQ(payload, "c");
}

TEST_F(DoorTest, a_descriptor_travels_with_its_frame) {
  int region_fd = -1;
  Region region;
  ASSERT_TRUE(create_region(&region_fd, &region).ok());
  region.client().signals[3].store(99);
  ASSERT_TRUE(send_frame(pair[0], DoorType::kOpen, "x", 1, region_fd).ok());
  DoorType type;
  std::string payload;
  int received = -1;
  ASSERT_TRUE(receive_frame(pair[1], 1000, &type, &payload, &received).ok());
  ASSERT_GE(received, 0);
  EXPECT_EQ(fcntl(received, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  Region mapped;
  ASSERT_TRUE(map_shared_region(received, &mapped).ok());
  EXPECT_EQ(mapped.client().signals[3].load(), 99u);
  unmap_region(mapped);
  close(received);
  destroy_region(region_fd, region);
}

TEST_F(DoorTest, a_frame_without_a_descriptor_says_so) {
  ASSERT_TRUE(send_frame(pair[0], DoorType::kOpen, "x", 1).ok());
  DoorType type;
  std::string payload;
  int received = 7;
  ASSERT_TRUE(receive_frame(pair[1], 1000, &type, &payload, &received).ok());
  EXPECT_EQ(received, -1);
}

TEST_F(DoorTest, a_descriptor_that_nobody_expects_is_refused_and_closed) {
  const int before = open_descriptors();
  ASSERT_TRUE(send_frame(pair[0], DoorType::kHello, "x", 1, STDIN_FILENO).ok());
  DoorType type;
  std::string payload;
  EXPECT_FALSE(receive_frame(pair[1], 1000, &type, &payload).ok());
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(DoorTest, garbage_is_refused) {
  const Outcome outcome = receive_raw("GET / HTTP/1.1\r\nHost: pool\r\n\r\n", 30);
  EXPECT_EQ(outcome.message(), "these bytes are no frame of Tidepool");
}

TEST_F(DoorTest, another_version_is_refused_with_both_numbers) {
  DoorHeader header;
  header.type = 1;
  header.version = 9;
  const Outcome outcome = receive_raw(&header, sizeof header);
  EXPECT_NE(outcome.message().find("version 9 of Tidepool's protocol, this side version " +
                                   std::to_string(kDoorVersion) + ": update this side"),
            std::string::npos)
      << outcome.message();
}

TEST(DoorHeaderTest, who_is_older_is_to_be_updated) {
  for (const int step : {-1, 1}) {
    DoorHeader header;
    header.type = uint16_t(DoorType::kOpen);
    header.version = uint16_t(kDoorVersion + step);
    const std::string said = check_header(header, "the client", "this agent").message();
    EXPECT_NE(said.find("version " + std::to_string(kDoorVersion + step)), std::string::npos) << said;
    EXPECT_NE(said.find("version " + std::to_string(kDoorVersion)), std::string::npos) << said;
    EXPECT_NE(said.find(step < 0 ? "update the client" : "update this agent"), std::string::npos) << said;
  }
}

TEST_F(DoorTest, an_unknown_type_is_refused) {
  DoorHeader header;
  header.type = uint16_t(kDoorTypeLast) + 1;
  EXPECT_EQ(receive_raw(&header, sizeof header).message(), "frames of type 10 do not exist");
}

TEST_F(DoorTest, a_frame_that_claims_too_much_is_refused_before_it_is_read) {
  DoorHeader header;
  header.type = 1;
  header.payload_bytes = kDoorPayloadMax + 1;
  EXPECT_EQ(receive_raw(&header, sizeof header).message(), "a frame is larger than 1 MiB");
}

TEST_F(DoorTest, a_frame_that_ends_early_is_refused) {
  DoorHeader header;
  header.type = 1;
  header.payload_bytes = 100;
  EXPECT_EQ(receive_raw(&header, sizeof header).message(), "the far side closed the connection");
}

TEST_F(DoorTest, random_frames_are_refused_or_exact) {
  peer::Numbers numbers{5};
  for (int round = 0; round < 2000; ++round) {
    DoorHeader header;
    if (numbers.next() % 8 == 0) header.magic = uint32_t(numbers.next());
    header.version = uint16_t(numbers.next() % 3);
    header.type = uint16_t(numbers.next() % 12);
    header.payload_bytes = uint32_t(numbers.next() % 64);
    int sockets[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    ASSERT_EQ(write(sockets[0], &header, sizeof header), ssize_t(sizeof header));
    const char bytes[32] = {};
    ASSERT_EQ(write(sockets[0], bytes, sizeof bytes), ssize_t(sizeof bytes));
    close(sockets[0]);
    DoorType type;
    std::string payload;
    const bool good = header.magic == kDoorMagic && header.version == kDoorVersion && header.type >= 1 &&
                      header.type <= uint16_t(kDoorTypeLast) && header.payload_bytes <= sizeof bytes;
    EXPECT_EQ(receive_frame(sockets[1], 1000, &type, &payload).ok(), good);
    close(sockets[1]);
  }
}

TEST_F(DoorTest, a_silent_far_side_is_given_up_in_time) {
  const uint64_t begin = now_ns();
  DoorType type;
  std::string payload;
  EXPECT_EQ(receive_frame(pair[1], 50, &type, &payload).message(), "no answer in time");
  EXPECT_LT(now_ns() - begin, 2'000'000'000u);
}

TEST_F(DoorTest, writing_to_a_closed_far_side_is_an_error_and_no_signal) {
  close(pair[1]);
  pair[1] = -1;
  EXPECT_FALSE(send_frame(pair[0], DoorType::kHello, "x", 1).ok());
}

TEST(Connect, names_the_address_that_did_not_answer) {
  int socket = -1;
  const Outcome unix_outcome = connect_unix("/nonexistent/door", 100, &socket);
  EXPECT_EQ(unix_outcome.message(), "cannot connect to /nonexistent/door: No such file or directory");
  EXPECT_FALSE(connect_unix(std::string(200, 'x'), 100, &socket).ok());
  EXPECT_FALSE(connect_unix("", 100, &socket).ok());
  const Outcome tcp_outcome = connect_tcp("127.0.0.1:1", 1000, &socket);
  EXPECT_EQ(tcp_outcome.message(), "cannot connect to 127.0.0.1:1: Connection refused");
  EXPECT_FALSE(connect_tcp("127.0.0.1", 100, &socket).ok());
  EXPECT_FALSE(connect_tcp("127.0.0.1:nonsense", 100, &socket).ok());
  EXPECT_EQ(socket, -1);
}

TEST(Connect, reaches_a_listener_on_tcp_and_closes_on_exec) {
  const Loopback listener(1);
  int client = -1;
  const Outcome outcome = connect_tcp(listener.text(), 1000, &client);
  ASSERT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_EQ(fcntl(client, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  EXPECT_EQ(fcntl(client, F_GETFL) & O_NONBLOCK, 0);
  close(client);
}

// A listener that no frame reaches, until it is found.
class RedialTest : public testing::Test {
 protected:
  void reachable(bool is) { set_cut_off(listener_.fd(), !is); }

  const Loopback listener_{8};
  const std::string address_ = listener_.text();
  int made_ = -1;
  bool refused_ = false;
};

TEST_F(RedialTest, is_through_as_soon_as_there_is_a_way) {
  reachable(false);
  Redial redial;
  for (int i = 0; i < 40; ++i) EXPECT_FALSE(redial.next(address_, 5, &made_, &refused_).ok());
  EXPECT_FALSE(refused_);
  reachable(true);
  const uint64_t begin = now_ns();
  const Outcome outcome = redial.next(address_, 300, &made_, &refused_);
  ASSERT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_LT(now_ns() - begin, 300'000'000u) << "the system itself asks again after a second";
  EXPECT_EQ(fcntl(made_, F_GETFL) & O_NONBLOCK, 0);
  close(made_);
}

TEST_F(RedialTest, an_answer_to_an_older_question_counts) {
  reachable(false);
  Redial redial;
  EXPECT_FALSE(redial.next(address_, 5, &made_, &refused_).ok());
  reachable(true);
  sleep_us(1'200'000);  // the system has asked again by then
  const std::string elsewhere = "127.0.0.1:1";
  const Outcome outcome = redial.next(elsewhere, 100, &made_, &refused_);
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  close(made_);
}

TEST_F(RedialTest, who_is_not_there_is_said_at_once) {
  Redial redial;
  EXPECT_EQ(redial.next("127.0.0.1:1", 1000, &made_, &refused_).message(),
            "cannot connect to 127.0.0.1:1: Connection refused");
  EXPECT_TRUE(refused_);
  EXPECT_FALSE(redial.next("127.0.0.1", 100, &made_, &refused_).ok());
}

TEST(EndpointText, survives_a_round_trip) {
  Endpoint endpoint;
  ASSERT_TRUE(Endpoint::parse("host=abc;unix=/run/a.sock;tcp=10.0.0.1:77", &endpoint).ok());
  EXPECT_EQ(endpoint.host, "abc");
  EXPECT_EQ(endpoint.unix_path, "/run/a.sock");
  EXPECT_EQ(endpoint.tcp_address, "10.0.0.1:77");
  EXPECT_EQ(endpoint.text(), "host=abc;unix=/run/a.sock;tcp=10.0.0.1:77");
  EXPECT_FALSE(endpoint.same_host());
}

TEST(EndpointText, knows_this_host) {
  Endpoint endpoint;
  endpoint.host = this_host_id();
  EXPECT_GE(endpoint.host.size(), 8u);
  EXPECT_TRUE(endpoint.same_host());
  EXPECT_FALSE(Endpoint{}.same_host());
}

TEST(EndpointText, may_name_one_socket_only) {
  Endpoint endpoint;
  ASSERT_TRUE(Endpoint::parse("tcp=[::1]:5", &endpoint).ok());
  EXPECT_EQ(endpoint.tcp_address, "[::1]:5");
  EXPECT_TRUE(endpoint.unix_path.empty());
}

TEST(EndpointText, refuses_what_is_none) {
  Endpoint endpoint;
  endpoint.host = "untouched";
  const std::string long_text = "unix=/" + std::string(kEndpointBytes, 'a');
  for (const std::string& text : {std::string(""), std::string("host=a"), std::string("unix="), std::string("unix"),
                                  std::string("door=/x"), std::string("unix=/a;unix=/b"), std::string("unix=/a b"),
                                  std::string("unix=/a\n"), std::string(";"), long_text}) {
    EXPECT_FALSE(Endpoint::parse(text, &endpoint).ok()) << text;
  }
  EXPECT_EQ(endpoint.host, "untouched");
}

TEST(RegionMapping, refuses_what_is_no_sealed_region_of_this_version) {
  Region region;
  EXPECT_FALSE(map_shared_region(-1, &region).ok());
  const int unsealed = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_FALSE(map_shared_region(unsealed, &region).ok());
  ASSERT_EQ(ftruncate(unsealed, kRegionBytes), 0);
  EXPECT_EQ(map_shared_region(unsealed, &region).message(), "the client's region is not sealed");
  close(unsealed);
  int fd = -1;
  Region mine;
  ASSERT_TRUE(create_region(&fd, &mine).ok());
  EXPECT_NE(ftruncate(fd, 4096), 0);  // the seal
  mine.client().version = 77;
  EXPECT_FALSE(map_shared_region(fd, &region).ok());
  EXPECT_EQ(region.base, nullptr);
  destroy_region(fd, mine);
}

TEST(Transports, are_found_by_name) {
  ASSERT_NE(find_transport("shm"), nullptr);
  EXPECT_TRUE(find_transport("shm")->same_host);
  EXPECT_EQ(find_transport("smoke"), nullptr);
  EXPECT_EQ(find_transport(""), nullptr);
  EXPECT_EQ(find_transport(nullptr), nullptr);
}

}  // namespace
}  // namespace tide
