// Handles, slots, images, identities: the parts that need no worker.

#include <cuda.h>
#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <utility>
#include <vector>

#include "api/uuid.h"
#include "base/limits.h"
#include "interpose/bundle.h"
#include "interpose/handles.h"
#include "interpose/host_zone.h"
#include "interpose/identity.h"
#include "interpose/image.h"
#include "interpose/sharing.h"
#include "interpose/slots.h"

namespace tide {
namespace {

struct Thing : Handled {
  int value = 0;
};

TEST(Handles, a_handle_is_never_an_address_and_finds_its_object) {
  HandleTable<Thing> table(HandleKind::kStream);
  Thing* thing = table.create();
  EXPECT_EQ(table.find(thing->handle), nullptr) << "not before it is published";
  table.publish(thing);
  EXPECT_EQ(table.find(thing->handle), thing);
}

TEST(Handles, are_no_addresses_and_positive_as_signed_numbers) {
  const auto handle = int64_t(make_handle(HandleKind::kContext, kHandleGenerationMask, 0));
  EXPECT_GT(handle, 0);
  EXPECT_NE(handle << 7 >> 7, handle) << "an address, even with pages of five levels";
}

TEST(Handles, a_stale_handle_finds_nothing_when_its_slot_is_used_again) {
  HandleTable<Thing> table(HandleKind::kEvent);
  Thing* first = table.create();
  table.publish(first);
  const uint64_t stale = first->handle;
  EXPECT_TRUE(table.destroy(first));
  EXPECT_FALSE(table.destroy(first));
  Thing* second = table.create();
  table.publish(second);
  EXPECT_EQ(first, second);
  EXPECT_NE(second->handle, stale);
  EXPECT_EQ(table.find(stale), nullptr);
}

TEST(Handles, foreign_values_find_nothing) {
  HandleTable<Thing> streams(HandleKind::kStream), events(HandleKind::kEvent);
  Thing* stream = streams.create();
  streams.publish(stream);
  events.publish(events.create());
  EXPECT_EQ(events.find(stream->handle), nullptr);
  for (const uint64_t value : {uint64_t(0), uint64_t(1), uint64_t(2), ~uint64_t(0), uint64_t(0x7fff12345678)}) {
    EXPECT_EQ(streams.find(value), nullptr);
  }
}

TEST(Handles, many_objects_over_several_pages) {
  HandleTable<Thing> table(HandleKind::kKernel);
  std::vector<Thing*> things;
  for (int i = 0; i < 3000; ++i) {
    things.push_back(table.create());
    things.back()->value = i;
    table.publish(things.back());
  }
  int sum = 0;
  table.each([&](const Thing* t) { sum += t->value == table.find(t->handle)->value; });
  EXPECT_EQ(sum, 3000);
}

TEST(Slots, freed_slots_rest_until_they_are_ready) {
  SlotPool pool(2, 0);
  uint32_t a = 9, b = 9, c = 9;
  const auto ready = [](uint32_t, uint64_t mark) { return mark <= 5; };
  EXPECT_TRUE(pool.take(&a, ready));
  EXPECT_TRUE(pool.take(&b, ready));
  EXPECT_FALSE(pool.take(&c, ready));
  pool.give(a, 6);
  EXPECT_FALSE(pool.take(&c, ready));
  pool.give(b, 5);
  EXPECT_TRUE(pool.take(&c, ready));
  EXPECT_EQ(c, b);
}

TEST(HostZone, memory_is_zero_lies_in_the_zone_and_comes_again) {
  HostZone zone;
  const uint64_t at = zone.allocate(5000, true);
  ASSERT_NE(at, 0u);
  EXPECT_GE(at, kHostZoneBase);
  EXPECT_EQ(at % 4096, 0u);
  auto* bytes = reinterpret_cast<char*>(at);
  EXPECT_EQ(bytes[4999], 0);
  bytes[4999] = 7;
  if (zone.descriptor() >= 0) {
    char there = 0;
    ASSERT_EQ(pread(zone.descriptor(), &there, 1, off_t(at - kHostZoneBase) + 4999), 1);
    EXPECT_EQ(there, 7) << "who maps the file sees the same memory";
  }
  const uint64_t addresses_only = zone.allocate(100, false);
  EXPECT_NE(addresses_only, 0u);
  EXPECT_NE(addresses_only, at);
  zone.release(at, 5000);
  EXPECT_EQ(zone.allocate(5000, true), at);
  EXPECT_EQ(bytes[4999], 0) << "what was released is forgotten";
}

TEST(Image, lengths_of_text_fat_binary_and_cubin) {
  const char* text = ".version 7.0\n";
  EXPECT_EQ(find_image(text).bytes, strlen(text) + 1);
  EXPECT_EQ(find_image(text).kind, ImageKind::kPtx);

  struct {
    uint32_t magic = 0xBA55ED50;
    uint16_t version = 1, header = 16;
    uint64_t body = 48;
    char bytes[48] = {};
  } fatbin;
  EXPECT_EQ(find_image(&fatbin).bytes, 64u);
  EXPECT_EQ(find_image(&fatbin).kind, ImageKind::kFatbin);

  struct {
    Elf64_Ehdr header{};
    char data[100] = {};
    Elf64_Shdr section{};
  } cubin;
  memcpy(cubin.header.e_ident, ELFMAG, SELFMAG);
  cubin.header.e_ident[EI_CLASS] = ELFCLASS64;
  cubin.header.e_ehsize = sizeof cubin.header;
  cubin.header.e_shoff = offsetof(decltype(cubin), section);
  cubin.header.e_shnum = 1;
  EXPECT_EQ(find_image(&cubin).bytes, cubin.header.e_shoff + sizeof(Elf64_Shdr));
  cubin.section.sh_type = SHT_PROGBITS;
  cubin.section.sh_offset = 64;
  cubin.section.sh_size = 10'000;
  EXPECT_EQ(find_image(&cubin).bytes, 10'064u);
}

TEST(Image, wrappers_are_opened_and_relocatable_ones_told_apart) {
  struct {
    uint32_t magic = 0xBA55ED50;
    uint16_t version = 1, header = 16;
    uint64_t body = 0;
  } fatbin;
  struct Wrapper {
    uint32_t magic = 0x466243b1, version = 1;
    const void* data = nullptr;
    const void* more = nullptr;
  } wrapper;
  wrapper.data = &fatbin;
  EXPECT_EQ(find_image(&wrapper).data, &fatbin);
  const void* list[] = {&fatbin, nullptr};
  wrapper.version = 2;
  wrapper.more = list;
  EXPECT_EQ(find_image(&wrapper).kind, ImageKind::kSeveralFatbins);
  list[0] = nullptr;
  EXPECT_EQ(find_image(&wrapper).kind, ImageKind::kFatbin);
  EXPECT_EQ(find_image("").kind, ImageKind::kUnknown);
}

TEST(Image, several_fat_binaries_travel_as_one_image) {
  struct Fatbin {
    uint32_t magic = 0xBA55ED50;
    uint16_t version = 1, header = 16;
    uint64_t body = 8;
    char bytes[8];
  } linked{.bytes = {'l'}}, unit{.bytes = {'u'}};
  struct {
    uint32_t magic = 0x466243b1, version = 2;
    const void* data;
    const void* more;
  } wrapper;
  const void* list[] = {&unit, &unit, nullptr};
  wrapper.data = &linked;
  wrapper.more = list;
  const std::vector<std::byte> bundle = bundle_of_wrapper(&wrapper);
  const Image image = find_image(bundle.data());
  EXPECT_EQ(image.kind, ImageKind::kBundle);
  EXPECT_EQ(image.bytes, bundle.size());
  BundleHeader header;
  memcpy(&header, bundle.data(), sizeof header);
  EXPECT_EQ(header.count, 3u);
  const std::byte* at = bundle.data() + sizeof header;
  for (const Fatbin* wanted : {&linked, &unit, &unit}) {
    BundleEntry entry;
    memcpy(&entry, at, sizeof entry);
    ASSERT_EQ(entry.bytes, sizeof(Fatbin));
    EXPECT_EQ(memcmp(at + sizeof entry, wanted, sizeof(Fatbin)), 0);
    at += sizeof entry + (entry.bytes + 8) / 8 * 8;
  }
  EXPECT_EQ(at, bundle.data() + bundle.size());
  list[1] = "not a fat binary";
  EXPECT_TRUE(bundle_of_wrapper(&wrapper).empty());
}

std::vector<VgpuPlace> four_on_one_gpu() {
  std::vector<VgpuPlace> places(4);
  for (VgpuPlace& p : places) {
    for (int i = 0; i < 16; ++i) p.info.uuid[i] = uint8_t(0x10 + i);
    p.info.attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] = 0x19;
  }
  return places;
}

TEST(Identity, vgpus_that_share_a_gpu_have_their_own_identities) {
  auto places = four_on_one_gpu();
  make_distinct(&places);
  EXPECT_EQ(places[0].info.uuid[15], 0x1f) << "the first keeps the GPU's own";
  std::set<std::string> uuids;
  std::set<int> domains;
  for (const VgpuPlace& p : places) {
    uuids.insert(uuid_text(p.info.uuid));
    domains.insert(p.info.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID]);
  }
  EXPECT_EQ(uuids.size(), 4u);
  EXPECT_EQ(domains.size(), 4u);
}

TEST(Sharing, a_descriptor_says_the_same_to_all_and_tells_when_it_is_gone) {
  SharedHandle handle;
  handle.kind = SharedKind::kPhysical;
  handle.name = 42;
  int given = -1, kept = -1;
  ASSERT_EQ(make_shared_descriptor(handle, &given, &kept), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) {
    SharedHandle read;
    ASSERT_TRUE(read_shared_descriptor(given, &read)) << "for the time number " << i;
    EXPECT_EQ(read.name, 42u);
    EXPECT_EQ(read.kind, SharedKind::kPhysical);
  }
  const int copy = dup(given);
  EXPECT_TRUE(shared_descriptor_open(kept));
  close(given);
  EXPECT_TRUE(shared_descriptor_open(kept));
  close(copy);
  EXPECT_FALSE(shared_descriptor_open(kept));
  close(kept);
}

TEST(Sharing, other_descriptors_are_not_ours) {
  SharedHandle read;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_FALSE(read_shared_descriptor(ends[0], &read));
  EXPECT_FALSE(read_shared_descriptor(-1, &read));
  close(ends[0]);
  close(ends[1]);
}

TEST(Identity, memory_is_said_to_be_shared_where_the_driver_can) {
  DeviceInfo info = {};
  hide_what_is_not_served(&info, true);
  EXPECT_EQ(info.attributes[CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES], 0);
  info.attributes[CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED] = 1;
  hide_what_is_not_served(&info, true);
  EXPECT_EQ(info.attributes[CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES],
            CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  EXPECT_EQ(info.attributes[CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED], 1);
}

TEST(Identity, cuda_visible_devices) {
  auto places = four_on_one_gpu();
  make_distinct(&places);
  using Numbers = std::vector<uint32_t>;
  EXPECT_EQ(visible_devices(nullptr, places), (Numbers{0, 1, 2, 3}));
  EXPECT_EQ(visible_devices("2,0", places), (Numbers{2, 0}));
  EXPECT_EQ(visible_devices("", places), Numbers{});
  EXPECT_EQ(visible_devices("1,9,2", places), (Numbers{1})) << "an invalid entry hides all that follow";
  EXPECT_EQ(visible_devices("1,1", places), Numbers{});
  EXPECT_EQ(visible_devices("-1", places), Numbers{});
  EXPECT_EQ(visible_devices(uuid_text(places[3].info.uuid).c_str(), places), (Numbers{3}));
}

}  // namespace
}  // namespace tide
