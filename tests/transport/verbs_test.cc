// What of the verbs transport needs no device: addresses (docs/wire.md), wishes, what is said where there is nothing.

#include "transport/verbs.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/link.h"
#include "transport/rdma.h"
#include "transport/verbs/carrier.h"

namespace tide {
namespace {

TEST(Verbs, addresses_lie_as_documented) {
  EXPECT_EQ(sizeof(VerbsAddress), 64u);
  EXPECT_EQ(offsetof(VerbsAddress, lid), 6u);
  EXPECT_EQ(offsetof(VerbsAddress, queue_pair), 8u);
  EXPECT_EQ(offsetof(VerbsAddress, ring_key), 20u);
  EXPECT_EQ(offsetof(VerbsAddress, connection), 28u);
  EXPECT_EQ(offsetof(VerbsAddress, ring_address), 32u);
  EXPECT_EQ(offsetof(VerbsAddress, gid), 48u);
  EXPECT_EQ(VerbsAddress().text().size(), 128u);
  EXPECT_EQ(kVerbsSlots, 64u);
  EXPECT_EQ(kVerbsSlotBytes, 2048u);
}

TEST(Verbs, addresses_survive_their_text) {
  VerbsAddress address;
  address.queue_pair = 0x123456;
  address.connection = 0x9abcdef0;
  address.ring_address = 0xfedcba9876543210;
  address.gid[15] = 0xff;
  VerbsAddress parsed;
  const Outcome outcome = VerbsAddress::parse(address.text(), &parsed);
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_EQ(parsed.queue_pair, address.queue_pair);
  EXPECT_EQ(parsed.connection, address.connection);
  EXPECT_EQ(parsed.ring_address, address.ring_address);
  EXPECT_EQ(parsed.gid[15], 0xff);
}

TEST(Verbs, malformed_addresses_are_refused) {
  VerbsAddress good, parsed;
  std::string nameless = good.text();
  good.connection = 1;
  EXPECT_TRUE(VerbsAddress::parse(good.text(), &parsed).ok());
  std::string cut = good.text(), letter = cut, magic = cut, version = cut;
  cut.pop_back();
  letter[7] = 'g';
  magic[0] = magic[0] == '0' ? '1' : '0';
  version[9] = '7';
  for (const std::string& bad : {std::string(), cut, good.text() + "0", letter, magic, version, nameless}) {
    EXPECT_FALSE(VerbsAddress::parse(bad, &parsed).ok()) << bad;
  }
}

TEST(Verbs, wishes_name_device_port_and_gid) {
  VerbsWish wish;
  EXPECT_TRUE(VerbsWish::parse("", &wish).ok());
  EXPECT_TRUE(wish.device.empty());
  EXPECT_TRUE(VerbsWish::parse("mlx5_0", &wish).ok());
  EXPECT_EQ(wish.device, "mlx5_0");
  EXPECT_EQ(wish.port, 0u);
  EXPECT_EQ(wish.gid_index, -1);
  EXPECT_TRUE(VerbsWish::parse("mlx5_0:2:3", &wish).ok());
  EXPECT_EQ(wish.port, 2u);
  EXPECT_EQ(wish.gid_index, 3);
  for (const char* bad : {":1", "a:0", "a:", "a:1:", "a:1:x", "a:1:2:3", "a:-1", "a:1:999"}) {
    EXPECT_FALSE(VerbsWish::parse(bad, &wish).ok()) << bad;
  }
}

// A port that is down may come up again; a device that is gone does not.
TEST(Verbs, only_what_cannot_be_mended_ends_a_connection) {
  EXPECT_STREQ(what_ends_with(IBV_EVENT_DEVICE_FATAL), kDeviceGone);
  for (const ibv_event_type type : {IBV_EVENT_QP_FATAL, IBV_EVENT_CQ_ERR}) EXPECT_NE(what_ends_with(type), nullptr);
  for (const ibv_event_type type : {IBV_EVENT_PORT_ERR, IBV_EVENT_PORT_ACTIVE, IBV_EVENT_GID_CHANGE}) {
    EXPECT_EQ(what_ends_with(type), nullptr);
  }
}

TEST(Verbs, what_is_locked_already_counts) {
  const Memlock memlock{.limited = true, .limit = 64u << 20, .used = 40u << 20};
  EXPECT_TRUE(memlock.has_room(24u << 20));
  EXPECT_FALSE(memlock.has_room(25u << 20));
  EXPECT_FALSE((Memlock{.limited = true, .limit = 1, .used = 2}).has_room(0));
  EXPECT_TRUE(Memlock().has_room(~uint64_t{0}));
  const std::string said = memlock.too_little_for("a connection", 33u << 20);
  for (const char* word : {"33 MiB", "65536 KiB", "40960", "ulimit -l"}) EXPECT_NE(said.find(word), std::string::npos);
}

TEST(Verbs, a_socket_has_the_gid_of_its_address) {
  uint8_t gid[16];
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  EXPECT_FALSE(gid_of_socket(pair[0], gid));
  close(pair[0]);
  close(pair[1]);
}

// One line that says what to do, and the caller keeps what is his.
TEST(Verbs, what_cannot_be_had_is_refused_in_one_line) {
  setenv("TIDE_VERBS_DEVICE", "no_such_device", 1);
  const Outcome usable = verbs_usable();
  ASSERT_FALSE(usable.ok());
  EXPECT_EQ(usable.message().find('\n'), std::string::npos);
  EXPECT_NE(usable.message().find_first_of("`_"), std::string::npos) << usable.message();
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  std::string data;
  std::unique_ptr<Link> link;
  EXPECT_EQ(find_transport("verbs")->accept(pair[0], -1, &data, &link).message(), usable.message());
  EXPECT_EQ(link, nullptr);
  EXPECT_EQ(write(pair[0], "x", 1), 1);  // still open
  unsetenv("TIDE_VERBS_DEVICE");
  const Outcome malformed = find_transport("verbs")->connect(Region{}, pair[1], "zz", &link);
  EXPECT_EQ(malformed.message(), "the worker's RDMA address is malformed");
  close(pair[0]);
  close(pair[1]);
}

}  // namespace
}  // namespace tide
