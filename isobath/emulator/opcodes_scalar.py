"""What every table-driven scalar (SALU) opcode of gfx942 means: one line an opcode.

    name  destination  sources  expression [; new SCC]

a, b, c: sources in order; d: the old destination; r: the result; scc: the old SCC (0 or 1).
Types: u uint32, i int32, U uint64, I int64, n the low half as int16; - no destination. SCC stays as
it was where no expression is given. Functions are those of bits.py. What
s_getpc_b64 gives is put among its sources by image.py. Branches, s_waitcnt,
saveexec, loads and MODE are not here but in lower_special.py and lower_memory.py.
Source of the meanings: AMD's published CDNA3 instruction set document.
"""

SCALAR = """
s_mov_b32 u u a
s_mov_b64 U U a
s_getpc_b64 U U a
s_movk_i32 i i a
s_cmov_b32 u ud where(scc, a, d)
s_cmov_b64 U Ud where(scc, a, d)
s_cmovk_i32 i id where(scc, a, d)
s_not_b32 u u ~a ; r != 0
s_not_b64 U U ~a ; r != 0
s_brev_b32 u u reverse_bits(a)
s_brev_b64 U U reverse_bits64(a)
s_add_u32 u uu a + b ; r < a
s_addc_u32 u uu a + b + scc ; carries(a, b, scc)
s_sub_u32 u uu a - b ; b > a
s_subb_u32 u uu a - b - scc ; borrows(a, b, scc)
s_add_i32 i ii a + b ; ((a ^ r) & (b ^ r)) < 0
s_sub_i32 i ii a - b ; ((a ^ b) & (a ^ r)) < 0
s_addk_i32 i di d + a ; ((d ^ r) & (a ^ r)) < 0
s_mulk_i32 i di d * a
s_mul_i32 i ii a * b
s_mul_hi_u32 u uu high_product_u(a, b)
s_mul_hi_i32 i ii high_product_i(a, b)
s_and_b32 u uu a & b ; r != 0
s_or_b32 u uu a | b ; r != 0
s_xor_b32 u uu a ^ b ; r != 0
s_andn2_b32 u uu a & ~b ; r != 0
s_orn2_b32 u uu a | ~b ; r != 0
s_nand_b32 u uu ~(a & b) ; r != 0
s_nor_b32 u uu ~(a | b) ; r != 0
s_xnor_b32 u uu ~(a ^ b) ; r != 0
s_and_b64 U UU a & b ; r != 0
s_or_b64 U UU a | b ; r != 0
s_xor_b64 U UU a ^ b ; r != 0
s_andn2_b64 U UU a & ~b ; r != 0
s_orn2_b64 U UU a | ~b ; r != 0
s_nand_b64 U UU ~(a & b) ; r != 0
s_nor_b64 U UU ~(a | b) ; r != 0
s_xnor_b64 U UU ~(a ^ b) ; r != 0
s_lshl_b32 u uu a << (b & 31) ; r != 0
s_lshr_b32 u uu a >> (b & 31) ; r != 0
s_ashr_i32 i ii a >> (b & 31) ; r != 0
s_lshl_b64 U Uu a << (b & 63) ; r != 0
s_lshr_b64 U Uu a >> (b & 63) ; r != 0
s_ashr_i64 I Ii a >> (b & 63) ; r != 0
s_lshl1_add_u32 u uu (a << 1) + b ; shift_add_carries(a, b, 1)
s_lshl2_add_u32 u uu (a << 2) + b ; shift_add_carries(a, b, 2)
s_lshl3_add_u32 u uu (a << 3) + b ; shift_add_carries(a, b, 3)
s_lshl4_add_u32 u uu (a << 4) + b ; shift_add_carries(a, b, 4)
s_min_i32 i ii minimum(a, b) ; a < b
s_max_i32 i ii maximum(a, b) ; a >= b
s_min_u32 u uu minimum(a, b) ; a < b
s_max_u32 u uu maximum(a, b) ; a >= b
s_abs_i32 i i absolute(a) ; r != 0
s_absdiff_i32 i ii absolute(a - b) ; r != 0
s_bfe_u32 u uu scalar_field_u(a, b) ; r != 0
s_bfe_i32 i iu scalar_field_i(a, b) ; r != 0
s_bfe_u64 U Uu scalar_field_u64(a, b) ; r != 0
s_bfe_i64 I Iu scalar_field_i64(a, b) ; r != 0
s_bfm_b32 u uu ((ONE << (a & 31)) - ONE) << (b & 31)
s_bfm_b64 U uu bit_mask64(a, b)
s_bcnt0_i32_b32 u u 32 - popcount(a) ; r != 0
s_bcnt1_i32_b32 u u popcount(a) ; r != 0
s_bcnt0_i32_b64 u U 64 - popcount64(a) ; r != 0
s_bcnt1_i32_b64 u U popcount64(a) ; r != 0
s_ff0_i32_b32 u u first_one(~a)
s_ff1_i32_b32 u u first_one(a)
s_ff0_i32_b64 u U first_one64(~a)
s_ff1_i32_b64 u U first_one64(a)
s_flbit_i32_b32 u u leading_zeros(a)
s_flbit_i32_b64 u U leading_zeros64(a)
s_flbit_i32 u i leading_signs(a)
s_flbit_i32_i64 u I leading_signs64(a)
s_sext_i32_i16 i n a
s_sext_i32_i8 i i (a << 24) >> 24
s_cselect_b32 u uu where(scc, a, b)
s_cselect_b64 U UU where(scc, a, b)
s_pack_ll_b32_b16 u uu (a & 0xFFFF) | (b << 16)
s_pack_lh_b32_b16 u uu (a & 0xFFFF) | (b & 0xFFFF0000)
s_pack_hh_b32_b16 u uu (a >> 16) | (b & 0xFFFF0000)
s_bitset0_b32 u ud d & ~(ONE << (a & 31))
s_bitset1_b32 u ud d | (ONE << (a & 31))
s_bitset0_b64 U ud d & ~bit64(a)
s_bitset1_b64 U ud d | bit64(a)
s_cmp_eq_i32 - ii - ; a == b
s_cmp_lg_i32 - ii - ; a != b
s_cmp_gt_i32 - ii - ; a > b
s_cmp_ge_i32 - ii - ; a >= b
s_cmp_lt_i32 - ii - ; a < b
s_cmp_le_i32 - ii - ; a <= b
s_cmp_eq_u32 - uu - ; a == b
s_cmp_lg_u32 - uu - ; a != b
s_cmp_gt_u32 - uu - ; a > b
s_cmp_ge_u32 - uu - ; a >= b
s_cmp_lt_u32 - uu - ; a < b
s_cmp_le_u32 - uu - ; a <= b
s_cmp_eq_u64 - UU - ; a == b
s_cmp_lg_u64 - UU - ; a != b
s_cmpk_eq_i32 - ii - ; a == b
s_cmpk_lg_i32 - ii - ; a != b
s_cmpk_gt_i32 - ii - ; a > b
s_cmpk_ge_i32 - ii - ; a >= b
s_cmpk_lt_i32 - ii - ; a < b
s_cmpk_le_i32 - ii - ; a <= b
s_cmpk_eq_u32 - uu - ; a == b
s_cmpk_lg_u32 - uu - ; a != b
s_cmpk_gt_u32 - uu - ; a > b
s_cmpk_ge_u32 - uu - ; a >= b
s_cmpk_lt_u32 - uu - ; a < b
s_cmpk_le_u32 - uu - ; a <= b
s_bitcmp0_b32 - uu - ; ((a >> (b & 31)) & 1) == 0
s_bitcmp1_b32 - uu - ; ((a >> (b & 31)) & 1) == 1
s_bitcmp0_b64 - Uu - ; ((a >> (b & 63)) & 1) == 0
s_bitcmp1_b64 - Uu - ; ((a >> (b & 63)) & 1) == 1
"""
