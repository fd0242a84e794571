#pragma once

// What of an image travels to a vGPU: of a fat binary the entries that its device can use. The pieces lie in the
// program's own memory; only the headers that say another length are made anew.

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "interpose/image.h"

namespace tide {

class ImagePieces {
 public:
  using Piece = std::span<const std::byte>;

  ImagePieces() = default;
  ImagePieces(ImagePieces&&) = default;  // what was made stays where it is
  ImagePieces& operator=(ImagePieces&&) = default;

  void append(Piece piece);
  // Appends a copy of these bytes, at most kMadeBytes; returns where they lie, to be changed still.
  std::byte* append_made(Piece bytes);

  // One behind the other they are the image to send.
  const std::vector<Piece>& pieces() const { return pieces_; }
  uint64_t bytes() const { return bytes_; }
  // Copies the next `count` bytes. Requires: so many are left.
  void read(std::byte* to, uint64_t count);

 private:
  static constexpr size_t kMadeBytes = 24;

  std::vector<Piece> pieces_;
  std::deque<std::array<std::byte, kMadeBytes>> made_;
  uint64_t bytes_ = 0;
  size_t next_ = 0;  // what read() has not copied yet begins at offset_ of this piece
  uint64_t offset_ = 0;
};

// For a device of this compute capability (e.g. 80; 0: not known, which takes everything), of a fat binary or of a
// bundle of those; anything else, or what looks odd, travels whole. So does a fat binary in which nothing is for that
// device: the driver says what is wrong with it. Requires: `image` stays as it is while the pieces are used.
ImagePieces pieces_for(ImagePieces::Piece image, unsigned capability);

}  // namespace tide
