// Attention of one head over the KV cache; included after kernels.h. Scores stand in vectors of 16 positions, so each is a
// sum over the head's dimensions in their order, and each output one over the positions in theirs.

inline void rotate(const Head& h, int position, const float* from, float* to, int half) {
    const float *cos = h.cos + static_cast<size_t>(position) * half, *sin = h.sin + static_cast<size_t>(position) * half;
    for (int d = 0; d < half; d++) {
        to[d] = from[d] * cos[d] - from[d + half] * sin[d];
        to[d + half] = from[d + half] * cos[d] + from[d] * sin[d];
    }
    for (int d = 2 * half; d < h.head_dim; d++) to[d] = from[d];
}

template <class E>
inline float scale_of(const float* x, int size) {
    if (sizeof(E) > 1) return 1.f;
    F top = Simd::set(0.f);
    for (int i = 0; i < size; i += N) top = max(top, max(Simd::load(x + i), Simd::set(0.f) - Simd::load(x + i)));
    return largest(top) / 127.f;
}

inline void put(float* to, const float* from, float) { __builtin_memcpy(to, from, LANES * sizeof(float)); }
inline void put(uint16_t* to, const float* from, float) {
    for (int v = 0; v < V; v++) Simd::store(to + v * N, Simd::load(from + v * N));
}
inline void put(int8_t* to, const float* from, float scale) {
    const F factor = Simd::set(scale > 0.f ? 1.f / scale : 0.f);
    for (int v = 0; v < V; v++) Simd::store_bytes(to + v * N, Simd::round(Simd::load(from + v * N) * factor));
}

// The head's k and v of `count` new tokens into the cache.
template <class E>
void remember(const Head& h, E* keys, E* values) {
    const int D = h.head_dim, half = h.rotary_dim / 2;
    float* k = h.scratch;  // rotated
    for (int i = 0; i < h.count; i++) {
        const float *from = h.qkv + i * h.qkv_stride + D, *v = from + D;
        const int position = h.start + i, block = position / LANES, lane = position % LANES;
        rotate(h, position, from, k, half);
        E* to = keys + static_cast<size_t>(block) * D * LANES + lane;
        E* panel = values + static_cast<size_t>(block) * D * LANES + lane * LANES;
        const float key_scale = scale_of<E>(k, D), value_scale = scale_of<E>(v, D);
        if (sizeof(E) == 1) h.key_scales[position] = key_scale, h.value_scales[position] = value_scale;
        E row[LANES];
        for (int d = 0; d < D; d += LANES) {
            put(row, k + d, key_scale);
            for (int l = 0; l < LANES; l++) to[(d + l) * LANES] = row[l];
            put(panel + d * LANES, v + d, value_scale);
        }
    }
}

// Softmax over the first `length` of `blocks` * 16 scores, times the scales of the values; into every T-th place of `to`.
inline void weigh(float* scores, int length, int blocks, const float* value_scales, float* to, int T) {
    const float lowest = -__builtin_inff();
    for (int j = length; j < blocks * LANES; j++) scores[j] = lowest;
    F top = Simd::set(lowest), total[V] = {};
    for (int j = 0; j < blocks * LANES; j += N) top = max(top, Simd::load(scores + j));
    const F peak = Simd::set(largest(top));
    for (int j = 0; j < blocks * LANES; j += LANES) {
        for (int v = 0; v < V; v++) {
            // The polynomial stops at e^-87, which is not quite nothing.
            const F s = Simd::load(scores + j + v * N), e = s > Simd::set(lowest) ? exp(s - peak) : Simd::set(0.f);
            total[v] = total[v] + e;
            Simd::store(scores + j + v * N, e);
        }
    }
    const float factor = 1.f / sum(total);
    for (int j = 0; j < blocks * LANES; j++) to[static_cast<size_t>(j) * T] = scores[j] * factor;
    if (value_scales)
        for (int j = 0; j < length; j++) to[static_cast<size_t>(j) * T] *= value_scales[j];
}

template <class E>
void attend(const Head& h) {
    const int D = h.head_dim, width = tile_width(h.count, Simd::TILE);
    E *keys = static_cast<E*>(h.keys), *values = static_cast<E*>(h.values);
    remember(h, keys, values);
    const float factor = 1.f / __builtin_sqrtf(static_cast<float>(D));
    for (int first = 0; first < h.count; first += width) {
        const int T = h.count - first < width ? h.count - first : width;
        const int end = h.start + first + T, blocks = (end + LANES - 1) / LANES, stride = blocks * LANES;
        float *row = h.scratch, *q = row + D, *scores = q + T * D, *weights = scores + static_cast<size_t>(T) * stride;
        for (int t = 0; t < T; t++) {
            rotate(h, h.start + first + t, h.qkv + (first + t) * h.qkv_stride, row, h.rotary_dim / 2);
            for (int d = 0; d < D; d++) q[d * T + t] = row[d] * factor;
        }
        products(Operand<E>{keys, static_cast<size_t>(D) * LANES, 0, D, blocks}, q, T, D, nullptr, scores, stride, false);
        for (int t = 0; t < T; t++) {
            float* score = scores + static_cast<size_t>(t) * stride;
            if (sizeof(E) == 1)
                for (int j = 0; j < stride; j += N) Simd::store(score + j, Simd::load(score + j) * Simd::load(h.key_scales + j));
            weigh(score, h.start + first + t + 1, blocks, sizeof(E) == 1 ? h.value_scales : nullptr, weights + t, T);
        }
        products(Operand<E>{values, LANES * LANES, static_cast<size_t>(D) * LANES, LANES, D / LANES}, weights, T, end, nullptr,
                 h.out + first * h.out_stride, h.out_stride, false);
    }
}

void attend_any(const Head& h) {
    if (h.bits == 32) attend<float>(h);
    if (h.bits == 16) attend<uint16_t>(h);
    if (h.bits == 8) attend<int8_t>(h);
}
