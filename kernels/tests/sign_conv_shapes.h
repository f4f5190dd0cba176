// Convolutions that the tests of trainings run forward and backward.
#ifndef DIRNET_TESTS_SIGN_CONV_SHAPES_H_
#define DIRNET_TESTS_SIGN_CONV_SHAPES_H_

#include "dirnet/dirnet.h"

namespace dirnet {
namespace test {

constexpr Conv2dShape kSignConvShapes[] = {
    {3, 9, 10, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {2, 7, 5, 70, 66, 1, 1, 2, 1, 0, 0, 0, 0, 1, 1, 1},
    {2, 8, 9, 8, 12, 5, 3, 1, 2, 2, 1, 2, 0, 1, 2, 4},
    {0, 8, 8, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
};

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_SIGN_CONV_SHAPES_H_
