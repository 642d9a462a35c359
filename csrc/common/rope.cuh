// What rope and rope_append_kv share: which two numbers of a head turn together, and how.
#pragma once

#include "common/heads.cuh"

namespace yaie::rotary {

// Row p of cos_sin [M,R] holds the R/2 cosines of position p, then its sines.
struct Table {
    const int* positions;  // [T]
    const float* cos_sin;
    int64_t row_stride;
    int half;          // R/2
    bool interleaved;  // pairs (2i, 2i+1), else (i, i + R/2)
    bool wide;         // four neighbouring numbers can be read at once

    __device__ const float* row(int64_t token) const {
        return cos_sin + positions[token] * row_stride;
    }
};

// Number d of a rotated head.
template <class T>
__device__ T rotated(const T* head, int d, const Table& table, const float* row) {
    if (d >= 2 * table.half) return head[d];  // its bits: no conversion to float and back
    const int pair = table.interleaved ? d / 2 : d % table.half;
    const int first = table.interleaved ? 2 * pair : pair;
    const int second = table.interleaved ? first + 1 : first + table.half;
    const float x1 = simt::to_float(head[first]), x2 = simt::to_float(head[second]);
    const float cosine = row[pair], sine = row[table.half + pair];
    return simt::from_float<T>(d == first ? x1 * cosine - x2 * sine : x2 * cosine + x1 * sine);
}

// Fast variants: a head is cut into items of two words. The first R/2 / N of them, N numbers a word,
// turn: they hold the pairs i*N to i*N + N - 1. The others are moved as they are.
struct Item {
    int first, second;  // words of the head; one that is past its end is not there
    int pair;           // the first of its pairs, if it turns
    bool turns;
};

template <int N>
__device__ Item item_of(int i, int half, bool interleaved) {
    const int turning = half / N;
    const bool turns = i < turning, apart = turns && !interleaved;
    return {apart ? i : 2 * i, apart ? turning + i : 2 * i + 1, i * N, turns};
}

template <class Word>
struct Words {
    Word first, second;
};

template <class T, class Word>
__device__ Words<Word> load(const T* head, const Item& item, int words) {
    const Word* from = reinterpret_cast<const Word*>(head);
    Words<Word> loaded{};
    if (item.first < words) loaded.first = from[item.first];
    if (item.second < words) loaded.second = from[item.second];
    return loaded;
}

template <class T, class Word>
__device__ void store(T* head, const Item& item, int words, const Words<Word>& stored) {
    Word* to = reinterpret_cast<Word*>(head);
    if (item.first < words) to[item.first] = stored.first;
    if (item.second < words) to[item.second] = stored.second;
}

// The cosines and sines of the N pairs of an item.
template <int N>
struct Angles {
    float cosine[N], sine[N];
};

template <int N>
__device__ void read(float (&to)[N], const float* from, bool wide) {
    if constexpr (N % 4 == 0) {
        if (wide) {
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                const float4 four = *reinterpret_cast<const float4*>(from + i);
                to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
            }
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = from[i];
}

template <int N>
__device__ Angles<N> angles_of(const Table& table, const float* row, const Item& item) {
    Angles<N> angles;
    read(angles.cosine, row + item.pair, table.wide);
    read(angles.sine, row + table.half + item.pair, table.wide);
    return angles;
}

template <class T, bool kInterleaved, class Word>
__device__ void turn(Words<Word>& words, const Angles<Packed<T, Word>::kCount>& angles) {
    constexpr int N = Packed<T, Word>::kCount;
    float x[2][N];
    unpack<T>(x[0], words.first);
    unpack<T>(x[1], words.second);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        // Numbers 2i and 2i + 1 of both words, or number i of each.
        float& x1 = kInterleaved ? x[2 * i / N][2 * i % N] : x[0][i];
        float& x2 = kInterleaved ? x[(2 * i + 1) / N][(2 * i + 1) % N] : x[1][i];
        const float y1 = x1 * angles.cosine[i] - x2 * angles.sine[i];
        x2 = x2 * angles.cosine[i] + x1 * angles.sine[i];
        x1 = y1;
    }
    words.first = pack<T, Word>(x[0]);
    words.second = pack<T, Word>(x[1]);
}

}  // namespace yaie::rotary
