// SPDX-License-Identifier: Apache-2.0
// Groups of 64 elements (16 Philox counters) go through loops without branches, which the compiler
// turns into vector code: a few nanoseconds an element, so that 600 million weights take seconds.
#include "lib/nn/initializer.h"

#include <array>
#include <bit>
#include <cmath>

#include "lib/base/threads.h"

namespace stmoe {
namespace {

constexpr int kLanes = 16, kWords = 4, kGroup = kLanes * kWords;
constexpr int64_t kGroupsPerChunk = 512;
constexpr double kBelowMinusTwo = 0.022750131948179209;  // the normal distribution function at -2

template <class T>
using Group = std::array<T, kGroup>;

// The words of kLanes consecutive counters, in the order of the elements: philox4x32 of
// lib/base/random.h, side by side.
void philox_group(RandomKey key, uint64_t first_counter, Group<uint32_t>& words) {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t counter = first_counter + static_cast<uint64_t>(i);
    c0[i] = static_cast<uint32_t>(counter);
    c1[i] = static_cast<uint32_t>(counter >> 32);
    c2[i] = c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(key.value), k1 = static_cast<uint32_t>(key.value >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0[i], p1 = uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(p1);
      c3[i] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (size_t i = 0; i < kLanes; ++i) {
    words[kWords * i] = c0[i];
    words[kWords * i + 1] = c1[i];
    words[kWords * i + 2] = c2[i];
    words[kWords * i + 3] = c3[i];
  }
}

// Horner's rule, highest power first in the parameter list.
inline double polynomial(double, double c) { return c; }
template <class... Rest>
double polynomial(double x, double highest, double next, Rest... rest) {
  return polynomial(x, highest * x + next, rest...);
}

// log(x) for normal x > 0, to about 1e-15: x = m 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2
// atanh((m-1)/(m+1)).
double log_of(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x) - 0x3FE6A09E667F3BCDu;
  const int64_t exponent = static_cast<int64_t>(bits) >> 52;
  const double m = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFFu) + 0x3FE6A09E667F3BCDu);
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  const double series = polynomial(z, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9,
                                   1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0);
  return static_cast<double>(exponent) * 0.69314718055994530942 + 2.0 * s * series;
}

// Inverse of the standard normal distribution function, Wichura's PPND16 (AS 241) for min(p, 1 - p)
// > exp(-25); both of its regions are computed and one is chosen.
double inverse_normal(double p) {
  const double q = p - 0.5;
  const double r = 0.180625 - q * q;
  const double middle =
      q *
      polynomial(r, 2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4,
                 4.5921953931549871457e+4, 1.3731693765509461125e+4, 1.9715909503065514427e+3,
                 1.3314166789178437745e+2, 3.3871328727963666080e+0) /
      polynomial(r, 5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4,
                 2.1213794301586595867e+4, 5.3941960214247511077e+3, 6.8718700749205790830e+2,
                 4.2313330701600911252e+1, 1.0);
  const double tail = q < 0 ? p : 1.0 - p;
  const double s = std::sqrt(-log_of(tail)) - 1.6;
  const double outer =
      polynomial(s, 7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                 1.27045825245236838258e+0, 3.64784832476320460504e+0, 5.76949722146069140550e+0,
                 4.63033784615654529590e+0, 1.42343711074968357734e+0) /
      polynomial(s, 1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
                 1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e+0,
                 2.05319162663775882187e+0, 1.0);
  return std::abs(q) <= 0.425 ? middle : std::copysign(outer, q);
}

double uniform_of(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

// `low` is the part of the distribution cut off on each side.
void normal_group(const Group<uint32_t>& words, double low, double deviation,
                  Group<double>& values) {
  for (size_t i = 0; i < kGroup; ++i)
    values[i] = deviation * inverse_normal(low + (1.0 - 2.0 * low) * uniform_of(words[i]));
}

void uniform_group(const Group<uint32_t>& words, double half_width, Group<double>& values) {
  for (size_t i = 0; i < kGroup; ++i) values[i] = half_width * (2.0 * uniform_of(words[i]) - 1.0);
}

template <class T>
void fill_random(const Tensor& tensor, const Initializer& initializer, RandomKey key) {
  T* out = tensor.data<T>();
  const int64_t count = tensor.numel();
  const bool is_uniform = initializer.kind == Initializer::Kind::uniform;
  const double low = initializer.kind == Initializer::Kind::truncated_normal ? kBelowMinusTwo : 0.0;
  parallel_for(num_chunks(count, kGroup), kGroupsPerChunk, [&](int64_t begin, int64_t end) {
    Group<uint32_t> words;
    Group<double> values;
    for (int64_t group = begin; group < end; ++group) {
      philox_group(key, static_cast<uint64_t>(group) * kLanes, words);
      if (is_uniform)
        uniform_group(words, initializer.value, values);
      else
        normal_group(words, low, initializer.value, values);
      const int64_t first = group * kGroup, size = std::min<int64_t>(kGroup, count - first);
      for (int64_t i = 0; i < size; ++i)
        out[first + i] = static_cast<T>(values[static_cast<size_t>(i)]);
    }
  });
}

}  // namespace

void initialize(const Tensor& values, const Initializer& initializer, RandomKey key) {
  STMOE_CHECK(
      values.is_contiguous() && (values.dtype() == DType::f32 || values.dtype() == DType::f64),
      "initialize: {} of shape {}", name_of(values.dtype()), values.shape().text());
  if (initializer.kind == Initializer::Kind::constant) {
    values.fill(initializer.value);
    return;
  }
  if (!is_host_memory(values.device())) {
    const Tensor host = Tensor::empty_on_heap(values.shape(), values.dtype());
    initialize(host, initializer, key);
    return values.copy_from(host);
  }
  if (values.dtype() == DType::f64)
    fill_random<double>(values, initializer, key);
  else
    fill_random<float>(values, initializer, key);
}

}  // namespace stmoe
