#ifndef DIRNET_TESTS_WANTED_ISA_H_
#define DIRNET_TESTS_WANTED_ISA_H_

#include <cstdlib>

namespace dirnet {
namespace test {

// Sets DIRNET_ISA, or removes it where `value` is null.
inline void set_wanted(const char* value) {
#if defined(_WIN32)
  _putenv_s("DIRNET_ISA", value != nullptr ? value : "");
#else
  if (value != nullptr) {
    setenv("DIRNET_ISA", value, 1);
  } else {
    unsetenv("DIRNET_ISA");
  }
#endif
}

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_WANTED_ISA_H_
