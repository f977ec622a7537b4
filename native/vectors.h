// Functions on vectors of 16 floats that both networks use.
#pragma once

#include <immintrin.h>

namespace mirrorchat {

constexpr int kLanes = 16;

// The exponential, with the polynomial of Cephes for the fraction. Its relative error is below 2e-7. NaN stays NaN,
// because the CPU's minimum and maximum then return their second operand.
inline __m512 exp(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), _mm512_min_ps(_mm512_set1_ps(88.0f), x));
    const __m512 whole = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
    __m512 r = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);  // x - whole ln 2, in two parts
    r = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

// The hyperbolic tangent, with an error below 1e-6.
inline __m512 tanh(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), power = exp(_mm512_add_ps(x, x));
    return _mm512_fnmadd_ps(_mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(power, one)), one, one);
}

}  // namespace mirrorchat
