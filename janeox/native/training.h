// Softmax cross-entropy over any `Simd`, as kernels.h; E is float, or Pair for bfloat16.

struct Two {
    F first, second;
};

inline Two load_two(const float* p) { return {Simd::load(p), Simd::load(p + N)}; }
inline Two load_two(const Pair* p) { return {Simd::even(Simd::load(p)), Simd::odd(Simd::load(p))}; }
inline void store_two(float* p, Two x) {
    Simd::store(p, x.first);
    Simd::store(p + N, x.second);
}
inline void store_two(Pair* p, Two x) { Simd::store(p, x.first, x.second); }

inline float get(const float* row, int i) { return row[i]; }
inline float get(const Pair* row, int i) {
    const uint32_t bits = uint32_t(i % 2 ? row[i / 2].odd : row[i / 2].even) << 16;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
inline void put(float* row, int i, float x) { row[i] = x; }
inline void put(Pair* row, int i, float x) { (i % 2 ? row[i / 2].odd : row[i / 2].even) = bfloat16(x); }

template <class E>
float cross_entropy(E* row, int columns, int target, float z_loss) {
    constexpr int STEP = __is_class(E) ? N : 2 * N;  // elements of a `Two`
    E* const end = row + columns / (2 * N) * STEP;
    if (target < 0) {
        for (E* p = row; p < end; p += STEP) store_two(p, {Simd::set(0.f), Simd::set(0.f)});
        return 0.f;
    }
    Two tops{Simd::set(-__builtin_huge_valf()), Simd::set(-__builtin_huge_valf())};
    for (const E* p = row; p < end; p += STEP) {
        const Two x = load_two(p);
        tops = {max(x.first, tops.first), max(x.second, tops.second)};
    }
    const float top = largest(max(tops.first, tops.second)), chosen = get(row, target);
    const F highest = Simd::set(top), zero = Simd::set(0.f);
    Two sums{zero, zero};
    for (const E* p = row; p < end; p += STEP) {
        const Two x = load_two(p);
        const F a = x.first - highest, b = x.second - highest;
        // `exp` takes what is no number for very small; 0 times it makes the loss no number, as it should be.
        sums.first = Simd::fma(a, zero, sums.first + exp(a));
        sums.second = Simd::fma(b, zero, sums.second + exp(b));
    }
    float parts[N], total = 0.f;
    Simd::store(parts, sums.first + sums.second);
    for (float part : parts) total += part;
    const float log_sum = top + __builtin_logf(total), factor = (1.f + 2.f * z_loss * log_sum) / total;
    const F scale = Simd::set(factor);
    for (E* p = row; p < end; p += STEP) {
        const Two x = load_two(p);
        store_two(p, {exp(x.first - highest) * scale, exp(x.second - highest) * scale});
    }
    put(row, target, largest(exp(Simd::set(chosen - top))) * factor - 1.f);
    return log_sum - chosen + z_loss * log_sum * log_sum;
}

float cross_entropy_any(void* row, bool bfloat, int columns, int target, float z_loss) {
    return bfloat ? cross_entropy(static_cast<Pair*>(row), columns, target, z_loss)
                  : cross_entropy(static_cast<float*>(row), columns, target, z_loss);
}
