#include "transport/replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/clock.h"
#include "tests/transport/peer.h"
#include "transport/link.h"
#include "transport/region.h"
#include "transport/ring.h"
#include "transport/sim.h"

namespace tide {
namespace {

class ReplicaTest : public testing::Test {
 protected:
  ReplicaTest() {
    EXPECT_TRUE(create_region(&fd_, &near).ok());
    EXPECT_TRUE(map_private_region(&far).ok());
    client = std::make_unique<Replica>(near, Side::kClient);
    worker = std::make_unique<Replica>(far, Side::kWorker);
  }
  ~ReplicaTest() override {
    unmap_region(far);
    destroy_region(fd_, near);
  }
  // Carries all that there is; how many parcels.
  int carry(Replica& from, Replica& to) {
    int count = 0;
    for (Parcel parcel; from.next(&parcel); ++count) {
      const char* refused = to.apply(parcel.header, parcel.entries, parcel.ring);
      EXPECT_EQ(refused, nullptr) << refused;
      ++next_serial_;
    }
    return count;
  }
  void sync() {
    carry(*client, *worker);
    EXPECT_TRUE(worker->synced());
    carry(*worker, *client);
  }
  uint32_t index(Region region, const Word& word) {
    return uint32_t((reinterpret_cast<const std::byte*>(&word) - region.base) / 8);
  }
  // What the worker says to one word after the state.
  std::string worker_refuses(uint32_t word, uint64_t value, uint32_t reserved = 0) {
    ParcelHeader header;
    header.serial = serial_++;
    header.entry_count = 1;
    const ParcelEntry entry{word, reserved, value};
    const char* refused = worker->apply(header, &entry, nullptr);
    return refused == nullptr ? "" : refused;
  }
  void sync_by_hand() {
    ParcelHeader header;
    header.flags = kParcelSynced;
    EXPECT_EQ(worker->apply(header, nullptr, nullptr), nullptr);
    serial_ = 1;
  }

  Region near, far;
  std::unique_ptr<Replica> client, worker;

 private:
  int fd_ = -1;
  uint64_t serial_ = 0, next_serial_ = 0;
};

TEST_F(ReplicaTest, nothing_travels_before_the_worker_has_the_state) {
  EXPECT_FALSE(worker->synced());
  Parcel parcel;
  EXPECT_FALSE(worker->next(&parcel));
  EXPECT_TRUE(client->has_more());
  sync();
  EXPECT_FALSE(client->has_more());
  EXPECT_FALSE(worker->has_more());
  EXPECT_EQ(far.client().magic, kRegionMagic);
}

TEST_F(ReplicaTest, a_word_goes_between_the_cursors_before_and_after_it) {
  sync();
  AnswerWriter answers(far);
  const auto publish = [&] {
    AnswerHeader* header = answers.reserve(0);
    header->kind = 1;
    answers.publish(header);
  };
  publish();
  far.worker().error.store(700);
  worker->note(far.worker().error);
  publish();
  Parcel parcel;
  ASSERT_TRUE(worker->next(&parcel));
  ASSERT_EQ(parcel.header.entry_count, 3);
  EXPECT_EQ(parcel.entries[0].word, index(far, far.worker().answer_head));
  EXPECT_EQ(parcel.entries[0].value, 32u);
  EXPECT_EQ(parcel.entries[1].word, index(far, far.worker().error));
  EXPECT_EQ(parcel.entries[2].word, index(far, far.worker().answer_head));
  EXPECT_EQ(parcel.entries[2].value, 64u);
  EXPECT_EQ(parcel.header.ring_bytes, 64u);
}

TEST_F(ReplicaTest, what_was_lent_arrives_in_its_place) {
  sync();
  CommandWriter writer(near);
  CommandReader reader(far);
  peer::Numbers sizes{3};
  std::vector<std::vector<unsigned char>> lent;
  for (uint64_t i = 0; i < 200; ++i) {
    const auto bytes = uint32_t(i % 5 == 0 ? 100 : 30'000 + sizes.next() % 200'000);
    lent.emplace_back(bytes);
    peer::fill(peer::Numbers{i}, lent.back().data(), bytes);
    CommandHeader* header = writer.reserve(bytes);
    ASSERT_NE(header, nullptr);
    header->call = 1;
    const uint64_t begin = writer.start() + sizeof(CommandHeader);
    const auto* from = reinterpret_cast<const std::byte*>(lent.back().data());
    // All but the first bytes, which lie in the ring as usual; and of every third nothing.
    const uint32_t own = i % 3 == 0 ? bytes : 48;
    memcpy(payload_of(header), from, own);
    if (own != bytes) {
      ASSERT_TRUE(client->lend(begin + own, from + own, bytes - own));
    }
    writer.publish(header);
    if (i % 4 != 3) continue;
    for (Parcel parcel; client->next(&parcel, i % 8 == 3 ? kParcelRingBytes : kParcelRingBytesMax);) {
      ASSERT_EQ(worker->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    }
    for (uint64_t n = i - 3; n <= i; ++n) {
      Command command;
      ASSERT_EQ(reader.next(&command), ReadState::kRecord) << n;
      ASSERT_EQ(command.header.payload_bytes, lent[n].size());
      EXPECT_EQ(memcmp(command.payload, lent[n].data(), lent[n].size()), 0) << n;
      reader.consume(command);
    }
    for (Parcel parcel; worker->next(&parcel);) {
      ASSERT_EQ(client->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    }
  }
  EXPECT_GT(writer.head(), kCommandRingBytes) << "the ring's end was not passed";
}

// Landings of two copies; of any other nobody knows.
struct TwoLandings : Landings {
  static constexpr uint64_t kBytes = 200'000;
  bool put(const AnswerHeader& header, uint64_t at, const std::byte* from, uint64_t bytes) override {
    if (header.sequence >= 2 || gone) return false;
    EXPECT_LE(at + bytes, uint64_t{header.payload_bytes});
    memcpy(memory[header.sequence].data() + header.offset + at, from, bytes);
    return true;
  }
  std::vector<unsigned char> memory[2] = {std::vector<unsigned char>(kBytes), std::vector<unsigned char>(kBytes)};
  bool gone = false;
};

// Pieces of two copies in turns, what is small, and what belongs nowhere, around the ring's end.
TEST_F(ReplicaTest, the_data_of_a_copy_arrive_where_they_belong_and_not_in_the_ring) {
  sync();
  TwoLandings landings;
  client->land_in(&landings);
  AnswerWriter writer(far);
  AnswerReader reader(near);
  peer::Numbers sizes{5};
  int landed = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    const uint32_t bytes = i % 3 == 2 ? uint32_t(sizes.next() % 100) : uint32_t(30'000 + sizes.next() % 150'000);
    std::vector<unsigned char> content(bytes);
    peer::fill(peer::Numbers{i}, content.data(), bytes);
    AnswerHeader* header = writer.reserve(bytes);
    ASSERT_NE(header, nullptr);
    header->kind = uint16_t(i % 7 == 0 ? AnswerKind::kResult : AnswerKind::kData);
    header->sequence = i % 5 == 0 ? 2 : i % 2;
    header->offset = sizes.next() % (TwoLandings::kBytes - bytes + 1);
    const AnswerHeader sent = *header;
    memcpy(payload_of(header), content.data(), bytes);
    writer.publish(header);
    memset(near.answers() + writer.start() % kAnswerRingBytes + sizeof sent, 0xee, bytes);
    for (Parcel parcel; worker->next(&parcel, i % 2 == 0 ? kParcelRingBytes : kParcelRingBytesMax);) {
      ASSERT_EQ(client->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    }
    Answer answer;
    ASSERT_EQ(reader.next(&answer), ReadState::kRecord) << i;
    ASSERT_EQ(answer.header.sequence, sent.sequence);
    const bool lands = sent.kind == uint16_t(AnswerKind::kData) && sent.sequence < 2 && bytes >= kLandedBytesLeast;
    ASSERT_EQ(answer.header.flags, lands ? kAnswerLanded : 0) << i;
    const void* found = lands ? static_cast<const void*>(landings.memory[sent.sequence].data() + sent.offset)
                              : static_cast<const void*>(answer.payload);
    EXPECT_EQ(memcmp(found, content.data(), bytes), 0) << i;
    if (lands) {
      EXPECT_EQ(answer.payload[bytes / 2], std::byte{0xee}) << "in the ring, too";
    }
    landed += lands;
    reader.consume(answer);
    carry(*client, *worker);
  }
  EXPECT_GT(landed, 50);
  EXPECT_GT(writer.head(), kAnswerRingBytes) << "the ring's end was not passed";
}

TEST_F(ReplicaTest, what_nobody_waits_for_any_more_goes_into_the_ring_from_then_on) {
  sync();
  TwoLandings landings;
  client->land_in(&landings);
  AnswerWriter writer(far);
  AnswerReader reader(near);
  constexpr uint32_t kBytes = 180'000;
  for (int i = 0; i < 2; ++i) {
    AnswerHeader* header = writer.reserve(kBytes);
    header->kind = uint16_t(AnswerKind::kData);
    memset(payload_of(header), 7 + i, kBytes);
    writer.publish(header);
  }
  for (Parcel parcel; worker->next(&parcel);) {
    ASSERT_EQ(client->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    landings.gone |= landings.memory[0][5000] == 7;  // in the middle of the first
  }
  EXPECT_EQ(landings.memory[0][kBytes - 1], 0);
  Answer answer;
  ASSERT_EQ(reader.next(&answer), ReadState::kRecord);
  reader.consume(answer);
  ASSERT_EQ(reader.next(&answer), ReadState::kRecord) << "records are found where they are";
  EXPECT_EQ(answer.header.flags, 0);
  EXPECT_EQ(answer.payload[kBytes - 1], std::byte{8});
}

// As over RDMA: the carrier writes the ring's bytes to where the parcel says, and those of a ring into the ring.
class FarWrites : public ReplicaTest {
 protected:
  // The next parcel of the worker, at most `most` ring bytes in it; false: there is none.
  bool write(Parcel* parcel, uint32_t most) {
    if (!worker->next(parcel, most)) return false;
    std::byte* ring = near.answers() + parcel->header.ring_begin % kAnswerRingBytes;
    std::byte* to = parcel->to ? reinterpret_cast<std::byte*>(parcel->to.address) : ring;
    if (parcel->header.ring_bytes != 0) memcpy(to, parcel->ring, parcel->header.ring_bytes);
    EXPECT_EQ((parcel->header.flags & kParcelLanded) != 0, bool(parcel->to));
    return true;
  }
  // An answer of which the worker may write the data to `memory`.
  AnswerHeader* publish(AnswerWriter& writer) {
    AnswerHeader* header = writer.reserve(kBytes);
    header->kind = uint16_t(AnswerKind::kData);
    const RemotePlace to{reinterpret_cast<uint64_t>(memory.data()), 1, 77};
    EXPECT_TRUE(worker->lend(writer.start() + sizeof *header, content.data(), kBytes, to));
    writer.publish(header);
    return header;
  }
  static constexpr uint32_t kBytes = 300'000;
  std::vector<std::byte> memory = std::vector<std::byte>(kBytes);
  std::vector<std::byte> content = std::vector<std::byte>(kBytes, std::byte{6});
};

TEST_F(FarWrites, data_go_where_the_client_said_and_the_record_says_so) {
  sync();
  AnswerWriter writer(far);
  AnswerReader reader(near);
  Answer answer;
  for (int i = 0; i < 100; ++i) {
    std::fill(content.begin(), content.end(), std::byte(i));
    publish(writer);
    AnswerHeader* small = writer.reserve(40);
    small->kind = uint16_t(AnswerKind::kResult);
    writer.publish(small);
    for (Parcel parcel; write(&parcel, i % 2 == 0 ? kParcelRingBytes : kParcelRingBytesMax);) {
      ASSERT_EQ(client->apply(parcel.header, parcel.entries, nullptr), nullptr);
    }
    ASSERT_EQ(reader.next(&answer), ReadState::kRecord);
    EXPECT_EQ(answer.header.flags, kAnswerLanded);
    EXPECT_EQ(memory, content) << i;
    ASSERT_EQ(reader.next(&answer), ReadState::kRecord);
    EXPECT_EQ(answer.header.flags, 0);
    reader.consume(answer);
    carry(*client, *worker);
  }
  EXPECT_GT(writer.head(), kAnswerRingBytes) << "the ring's end was not passed";
}

// The places are of one connection: behind a break the bytes come into the ring.
TEST_F(FarWrites, what_is_taken_back_goes_into_the_ring) {
  sync();
  AnswerWriter writer(far);
  publish(writer);
  Parcel parcel;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(write(&parcel, kParcelRingBytes));
  worker->take_back();
  while (worker->next(&parcel)) EXPECT_FALSE(parcel.to);
  EXPECT_EQ(far.answers()[sizeof(AnswerHeader) + kBytes - 1], std::byte{6});
}

TEST_F(FarWrites, a_payload_in_two_places_is_refused) {
  sync();
  AnswerWriter writer(far);
  publish(writer);
  bool landed = false;
  for (Parcel parcel; write(&parcel, kParcelRingBytes); landed |= bool(parcel.to)) {
    if (landed) parcel.header.flags = 0;
    const char* refused = client->apply(parcel.header, parcel.entries, nullptr);
    if (landed) {
      ASSERT_NE(refused, nullptr);
      return;
    }
    ASSERT_EQ(refused, nullptr);
  }
  FAIL();
}

TEST_F(FarWrites, only_data_may_lie_elsewhere) {
  sync();
  AnswerWriter writer(far);
  publish(writer)->kind = uint16_t(AnswerKind::kResult);
  const char* refused = nullptr;
  for (Parcel parcel; refused == nullptr && write(&parcel, kParcelRingBytes);) {
    refused = client->apply(parcel.header, parcel.entries, nullptr);
    EXPECT_EQ(refused != nullptr, bool(parcel.to));
  }
  EXPECT_NE(refused, nullptr);
  ParcelHeader header;  // and the client may not say so at all
  header.serial = 1;
  header.flags = kParcelLanded;
  header.ring_bytes = 16;
  EXPECT_NE(worker->apply(header, nullptr, nullptr), nullptr);
}

// What makes no sense as a record is for who reads the ring to refuse.
TEST_F(ReplicaTest, records_of_impossible_lengths_land_nowhere) {
  for (const uint32_t length : {0u, 16u, 24u, 5'000'001u, ~0u}) {
    ArrivingRecords records;
    TwoLandings landings;
    std::vector<std::byte> ring(1 << 20), come(100'000, std::byte{3});
    records.begin(ring.data(), ring.size(), 0);
    records.set_landings(&landings);
    AnswerHeader header;
    header.kind = uint16_t(AnswerKind::kData);
    header.bytes = length;
    header.payload_bytes = 90'000;
    memcpy(come.data(), &header, sizeof header);
    for (size_t at = 0; at < come.size(); at += 1000) records.take(come.data() + at, 1000);
    EXPECT_TRUE(std::equal(come.begin(), come.end(), ring.begin())) << length;
  }
}

// As when the vGPU moves: another worker gets what the first has not consumed, from the ring alone.
TEST_F(ReplicaTest, what_was_lent_and_is_taken_back_is_sent_again_from_the_ring) {
  sync();
  CommandWriter writer(near);
  constexpr uint32_t kBytes = 100'000;
  std::vector<std::vector<unsigned char>> lent(6, std::vector<unsigned char>(kBytes));
  for (uint64_t i = 0; i < lent.size(); ++i) {
    peer::fill(peer::Numbers{i}, lent[i].data(), kBytes);
    CommandHeader* header = writer.reserve(kBytes);
    header->call = 1;
    const auto* from = reinterpret_cast<const std::byte*>(lent[i].data());
    ASSERT_TRUE(client->lend(writer.start() + sizeof(CommandHeader), from, kBytes));
    writer.publish(header);
  }
  // Two are consumed, and their memory given back; of others the bytes have left.
  CommandReader reader(far);
  Command command;
  for (Parcel parcel; near.worker().command_tail.load() == 0 && client->next(&parcel);) {
    ASSERT_EQ(worker->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    if (far.client().command_head.load() < 3 * kBytes) continue;
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(reader.next(&command), ReadState::kRecord);
      reader.consume(command);
    }
    carry(*worker, *client);
  }
  for (int i = 0; i < 2; ++i) std::fill(lent[i].begin(), lent[i].end(), 0xee);
  client->take_back();
  const std::vector<std::vector<unsigned char>> before = lent;
  for (auto& each : lent) std::fill(each.begin(), each.end(), 0xdd);

  Region next;
  ASSERT_TRUE(map_private_region(&next).ok());
  client = std::make_unique<Replica>(near, Side::kClient);
  Replica successor(next, Side::kWorker);
  carry(*client, successor);
  carry(successor, *client);
  carry(*client, successor);
  CommandReader last(next);
  for (size_t i = 2; i < before.size(); ++i) {
    ASSERT_EQ(last.next(&command), ReadState::kRecord) << i;
    ASSERT_EQ(command.header.payload_bytes, kBytes);
    EXPECT_EQ(memcmp(command.payload, before[i].data(), kBytes), 0) << i;
  }
  EXPECT_EQ(last.next(&command), ReadState::kEmpty);
  unmap_region(next);
}

TEST_F(ReplicaTest, the_head_stands_between_records_while_a_long_ring_travels) {
  sync();
  CommandWriter writer(near);
  CommandReader reader(far);
  uint64_t hash = 0, far_hash = 0;
  for (int i = 0; i < 3; ++i) {
    CommandHeader* header = writer.reserve(100'000);
    header->call = 1;
    peer::fill(peer::Numbers{uint64_t(i)}, reinterpret_cast<unsigned char*>(payload_of(header)), 100'000);
    hash = peer::mix(hash, payload_of(header), 100'000);
    writer.publish(header);
  }
  int seen = 0, parcels = 0;
  for (Parcel parcel; client->next(&parcel); ++parcels) {
    ASSERT_EQ(worker->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    Command command;
    ReadState state;
    while ((state = reader.next(&command)) == ReadState::kRecord) {
      ++seen;
      far_hash = peer::mix(far_hash, command.payload, command.header.payload_bytes);
      if (seen == 1) {
        EXPECT_LE(parcels, 4) << "the first record need not wait for the last";
      }
    }
    ASSERT_EQ(state, ReadState::kEmpty);
  }
  EXPECT_EQ(seen, 3);
  EXPECT_EQ(far_hash, hash);
  EXPECT_GE(parcels, 5);
}

// Records of 1 MiB, as copies are.
void publish_mib(CommandWriter& writer, int count) {
  for (int i = 0; i < count; ++i) {
    CommandHeader* header = writer.reserve((1u << 20) - 32);
    ASSERT_NE(header, nullptr);
    header->call = 1;
    writer.publish(header);
  }
}

TEST_F(ReplicaTest, what_is_on_the_way_is_what_the_far_side_does_not_have) {
  sync();
  CommandWriter writer(near);
  publish_mib(writer, 4);
  EXPECT_EQ(client->on_the_way(), 4u << 20);
  uint64_t carried = 0;
  for (Parcel parcel; carried < (1u << 20) && client->next(&parcel);) {
    carried += parcel.header.ring_bytes;
    ASSERT_EQ(worker->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
  }
  EXPECT_TRUE(worker->has_more()) << "so much is worth a parcel of its own, though nobody has read any of it";
  Parcel parcel;
  ASSERT_TRUE(worker->next(&parcel));
  EXPECT_EQ(parcel.header.received, carried);
  EXPECT_EQ(parcel.header.entry_count, 0);
  EXPECT_FALSE(worker->has_more());
  ASSERT_EQ(client->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
  EXPECT_EQ(client->on_the_way(), (4u << 20) - carried);
  carry(*client, *worker);
  carry(*worker, *client);
  EXPECT_LT(client->on_the_way(), kReceivedTold);
}

TEST_F(ReplicaTest, a_reader_that_takes_its_time_is_no_slow_path) {
  sync();
  CommandWriter writer(near);
  CommandReader reader(far);
  publish_mib(writer, 12);
  for (Parcel parcel; client->next(&parcel);) {
    ASSERT_EQ(worker->apply(parcel.header, parcel.entries, parcel.ring), nullptr);
    carry(*worker, *client);
  }
  Command command;
  while (reader.next(&command) == ReadState::kRecord) {
    reader.consume(command);
    sleep_us(50'000);
    carry(*worker, *client);
  }
  EXPECT_EQ(far.worker().command_tail.load(), 12u << 20);
  // As fast as it is read would be 20 MB/s; a busy machine under a sanitizer still copies faster than three times that.
  EXPECT_TRUE(client->bytes_per_s() == 0 || client->bytes_per_s() > 60'000'000) << client->bytes_per_s();
}

TEST_F(ReplicaTest, more_received_than_was_sent_is_refused) {
  sync_by_hand();
  ParcelHeader header;
  header.serial = 1;
  header.received = 16;
  EXPECT_STREQ(worker->apply(header, nullptr, nullptr), "more has come than was sent");
}

TEST_F(ReplicaTest, the_endpoint_of_a_move_comes_before_its_epoch) {
  sync();
  strcpy(far.worker().next_endpoint, "host=b;tcp=127.0.0.1:9");
  far.worker().next_epoch.store(5);
  worker->note(far.worker().next_epoch);
  carry(*worker, *client);
  EXPECT_EQ(near.worker().next_epoch.load(), 5u);
  EXPECT_STREQ(near.worker().next_endpoint, "host=b;tcp=127.0.0.1:9");
}

TEST_F(ReplicaTest, a_thousand_notes_of_one_word_keep_the_last) {
  sync();
  for (uint64_t i = 1; i <= 1000; ++i) {
    far.worker().stream_progress[0].store(i);
    worker->note(far.worker().stream_progress[0]);
  }
  carry(*worker, *client);
  EXPECT_EQ(near.worker().stream_progress[0].load(), 1000u);
}

TEST_F(ReplicaTest, words_of_the_receiver_are_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(index(far, far.worker().error), 1), "a word that is not the far side's");
}
TEST_F(ReplicaTest, words_of_the_sleepers_are_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(192 / 8, 1), "a word that is not the far side's");
}
TEST_F(ReplicaTest, words_outside_of_the_pages_are_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(0xffffffff, 1), "a word that is not the far side's");
}
TEST_F(ReplicaTest, a_word_in_a_ring_is_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(uint32_t(kCommandRingOffset / 8), 1), "a word that is not the far side's");
}
TEST_F(ReplicaTest, a_reserved_field_that_is_set_is_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(index(far, far.client().signals[0]), 1, 1), "a reserved field is not zero");
}
TEST_F(ReplicaTest, a_head_without_its_bytes_is_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(index(far, far.client().command_head), 16), "a cursor is out of bounds");
}
TEST_F(ReplicaTest, a_tail_of_what_was_never_sent_is_refused) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(index(far, far.client().answer_tail), 16), "a cursor is out of bounds");
}
TEST_F(ReplicaTest, a_signal_is_accepted) {
  sync_by_hand();
  EXPECT_EQ(worker_refuses(index(far, far.client().signals[1023]), 9), "");
  EXPECT_EQ(far.client().signals[1023].load(), 9u);
}

TEST_F(ReplicaTest, a_gap_in_the_parcels_is_refused) {
  sync_by_hand();
  ParcelHeader header;
  header.serial = 2;
  EXPECT_STREQ(worker->apply(header, nullptr, nullptr), "a parcel is missing");
}

TEST_F(ReplicaTest, a_state_whose_cursors_do_not_fit_is_refused) {
  ParcelHeader header;
  header.flags = kParcelSynced;
  header.entry_count = 1;
  const ParcelEntry entry{index(far, far.worker().answer_head), 0, kAnswerRingBytes + 16};
  EXPECT_STREQ(worker->apply(header, &entry, nullptr), "the cursors of the state do not fit together");
  EXPECT_FALSE(worker->synced());
}

TEST_F(ReplicaTest, random_parcels_never_write_outside_of_the_region) {
  // What lies behind the region is not mapped, or not ours; ASan and the rings' own checks would tell.
  peer::Numbers numbers{21};
  std::vector<std::byte> bytes(kParcelRingBytesMax);
  for (int round = 0; round < 2000; ++round) {
    Region region;
    ASSERT_TRUE(map_private_region(&region).ok());
    Replica fuzzed(region, Side::kWorker);
    for (uint64_t serial = 0; serial < 6; ++serial) {
      ParcelHeader header;
      header.serial = serial;
      header.flags = uint16_t(serial == 0 || numbers.next() % 8 == 0);
      header.entry_count = uint16_t(numbers.next() % 3);
      header.ring_bytes = serial == 0 ? 0 : uint32_t(numbers.next() % (kParcelRingBytesMax + 1));
      header.ring_begin = numbers.next() % 4 == 0 ? numbers.next() : region.client().command_head.load();
      ParcelEntry entries[3];
      for (ParcelEntry& entry : entries) {
        const uint64_t word = numbers.next();
        entry.word = uint32_t(word % 3 == 0 ? word : word % (kCommandRingOffset / 8));
        entry.value = numbers.next() % 2 == 0 ? numbers.next() : numbers.next() % 4096 * 16;
      }
      if (fuzzed.apply(header, entries, bytes.data()) != nullptr) break;
      const uint64_t unread = region.client().command_head.load() - region.worker().command_tail.load();
      ASSERT_LE(unread, kCommandRingBytes);
    }
    unmap_region(region);
  }
}

TEST(SimSettings, are_read_and_refused) {
  SimSettings settings;
  ASSERT_TRUE(SimSettings::parse("rtt_us=100,gbit=2.5,jitter_us=3,drop_after_bytes=1000,seed=9", &settings).ok());
  EXPECT_EQ(settings.rtt_us, 100u);
  EXPECT_EQ(settings.gbit, 2.5);
  EXPECT_EQ(settings.jitter_us, 3u);
  EXPECT_EQ(settings.drop_after_bytes, 1000u);
  EXPECT_EQ(settings.seed, 9u);
  for (const char* bad :
       {"rtt_us", "rtt_us=", "rtt_us=x", "rtt_us=-1", "speed=1", "rtt_us=1,rtt_us=2", "gbit=0", "gbit=nan"}) {
    EXPECT_FALSE(SimSettings::parse(bad, &settings).ok()) << bad;
    EXPECT_EQ(find_transport((std::string("sim:") + bad).c_str()), nullptr) << bad;
  }
  EXPECT_EQ(find_transport("sim:rtt_us=7"), find_transport("sim:rtt_us=7"));
  EXPECT_STREQ(find_transport("sim")->name, "sim");
}

}  // namespace
}  // namespace tide
