#pragma once

// What a program hands to a load call, taken apart: fatbinary wrappers (versions 1 and 2), bare fatbinaries, bare
// machine code, PTX text. The load calls pass no length: it comes from the headers, which are therefore believed as far
// as the outermost one goes; everything inside is checked against it.

#include <cstdint>
#include <string>
#include <vector>

namespace softgpu {

enum class ImageStatus {
  kOk,
  kInvalid,  // not an image, or damaged
  kNoPtx,    // machine code only
  kTooNew,   // PTX only for devices above this one
};

struct ImageText {
  ImageStatus status = ImageStatus::kInvalid;
  std::string error;             // one line, unless kOk
  std::vector<std::string> ptx;  // one text; several when the program was linked from several units
  bool machine_code = false;     // the text only names the kernels: what they do is machine code for the device
};

// `capability` is that of the device, e.g. 80. Among the PTX texts of a fatbinary the one with the highest target that
// is not above it is chosen. Where there is none but machine code that such a device would run, newer PTX beside it
// will do, else its outline; with `any_machine_code`, machine code for other devices has its outline read as well.
ImageText read_image(const void* image, unsigned capability, bool any_machine_code = false);

}  // namespace softgpu
