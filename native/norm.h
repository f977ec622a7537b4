// Layer normalization of one row.
#pragma once

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace mirrorchat {

// Python fills this struct in; mirrorchat/hardware/native_layers.py has the same fields.
struct Norm {
    const float *weight, *bias;
    double eps;
};

// `width` is a multiple of kLanes.
inline void normalize(const Norm& norm, const float* x, int64_t width, float* out) {
    __m512 sum = _mm512_setzero_ps(), square = _mm512_setzero_ps();
    for (int64_t i = 0; i < width; i += kLanes) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
    for (int64_t i = 0; i < width; i += kLanes) {
        const __m512 away = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        square = _mm512_fmadd_ps(away, away, square);
    }
    const float variance = _mm512_reduce_add_ps(square) / width + static_cast<float>(norm.eps);
    const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(variance));
    for (int64_t i = 0; i < width; i += kLanes) {
        const __m512 scaled = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), inverse);
        _mm512_storeu_ps(out + i, _mm512_fmadd_ps(scaled, _mm512_loadu_ps(norm.weight + i), _mm512_loadu_ps(norm.bias + i)));
    }
}

}  // namespace mirrorchat
