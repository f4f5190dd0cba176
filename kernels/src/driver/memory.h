#ifndef DIRNET_SRC_DRIVER_MEMORY_H_
#define DIRNET_SRC_DRIVER_MEMORY_H_

#include <cstddef>
#include <cstdint>

namespace dirnet {

enum class Contents { kZero, kUndefined };

// Memory aligned to 64 bytes; null when there is none. C++17's aligned new would do it, but needs a newer C++
// run time than the oldest systems that the library is meant for have.
uint8_t* allocate_aligned(size_t bytes, Contents contents = Contents::kZero);
void free_aligned(uint8_t* memory);

class AlignedBuffer {
 public:
  explicit AlignedBuffer(size_t bytes, Contents contents = Contents::kZero)
      : data_(allocate_aligned(bytes, contents)) {}
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { free_aligned(data_); }
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_MEMORY_H_
