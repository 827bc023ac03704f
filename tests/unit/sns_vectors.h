/* sns_vectors.h - made with openssl: `openssl req -x509 -newkey rsa:2048 -days 36500`, and
 * `openssl dgst -sha1 -sign` (or -sha256) over the text to sign as the SNS guide describes it. */
#ifndef SNS_VECTORS_H
#define SNS_VECTORS_H

static const char certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIDGzCCAgOgAwIBAgIUMZNYCLXk2XmyRAe3CNK7Hgx29GowDQYJKoZIhvcNAQEL\n"
    "BQAwHDEaMBgGA1UEAwwRc25zLmFtYXpvbmF3cy5jb20wIBcNMjYxMTI1MDAxNzM3\n"
    "WhgPMjEyNjExMDEwMDE3MzdaMBwxGjAYBgNVBAMMEXNucy5hbWF6b25hd3MuY29t\n"
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlbuQsN9yE8JnvC9FNNZL\n"
    "zdCi/jiNBxTUoxZR36EnyGz+nBt3CDoSKV2OiPOTsbB7PNhgJVMc4gNvhATuIQUz\n"
    "MvIckYTGI8f0sIUdVBS2o0nkKpOsumThaDhNb+nPNC/E1jomMETIgOCHcCXJ6q8M\n"
    "+L85jD7polXljx8usTeczUE5kjKvXOIaOvZKtQf3ItQVh0Rmu3Snboq9unzI7+vW\n"
    "sAA5S1RkBB/cHJ9N7hF9lAnHPz320/CY9EOZd/GCphOi/O9Efjli5+4RPlRJNxea\n"
    "d7o/nL8Jpncgf9wrFE4K03rYn9F0dMz0gYwoqE6DXd47ek5AnwhR+7zjhnD7pXOG\n"
    "VQIDAQABo1MwUTAdBgNVHQ4EFgQUv/u6PVIv/amZEcVtwZKUXoE8TswwHwYDVR0j\n"
    "BBgwFoAUv/u6PVIv/amZEcVtwZKUXoE8TswwDwYDVR0TAQH/BAUwAwEB/zANBgkq\n"
    "hkiG9w0BAQsFAAOCAQEASSbDobEGCd96ywYXXZW2gyYAE0vP2czN9Xi7Go4F5Sfv\n"
    "CkjR9kUVLyYfEuryJoJ1LU3BuEhsVcK/uXgmTi0nrBZ/aRjcjAvnZOseJ2cOxDiJ\n"
    "U/uCoCjey6V7yfmfoC2fb/EpdXKiaAAXGPXfwsOY3OTsoSDa/C00MdXtBQvfrcRW\n"
    "etrv/MYFpXwGNfYMPT78WkMhmig1JxWxJ1oa1WhovRFZSSJRgY+ib//j6zpmDFeu\n"
    "Deh0O9zANr23ej7CM6Ykug2kaZ7DKB81tM2sIopMYl4ZMAo1qy5GrEI4B3gAgVr7\n"
    "iwqIvnIK56FPXH3XHAlNUSdhcqieMChBopeNhMtw2w==\n"
    "-----END CERTIFICATE-----\n";
static const char certificate_1024[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIB/jCCAWegAwIBAgIULofktEGzCWnJnYTgoZhlO7idy3AwDQYJKoZIhvcNAQEL\n"
    "BQAwEDEOMAwGA1UEAwwFc21hbGwwIBcNMjYxMTI1MDAxNzM3WhgPMjEyNjExMDEw\n"
    "MDE3MzdaMBAxDjAMBgNVBAMMBXNtYWxsMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCB\n"
    "iQKBgQCoB6acfU06lpOXT9DyUqQ4PurfwvukXeWXmoqw39h4Orfmb8yg/zXIzKeI\n"
    "0R4/fvlvHxnW7M8KJAZCu6W4KrwqxMlRRE/7cuCDyTzCE5g1PMqLMw5MscjGW0o5\n"
    "a61F1xyo/OiTcbzn5NrEzt0oOyuihdBGnjZ0LQ4S5fzzZI1ypwIDAQABo1MwUTAd\n"
    "BgNVHQ4EFgQUIsrBa6mUGOq9sZX/GIJiH7IUA5gwHwYDVR0jBBgwFoAUIsrBa6mU\n"
    "GOq9sZX/GIJiH7IUA5gwDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOB\n"
    "gQAXn8wnEHfW2MZltvpgX2OMvWj1fm43tD8TrewdgBFBexVk3GbXfrfEX7xtssCo\n"
    "UMjaNgIdvq10LD6+4Om6liHNTTNkiVV65zhcmDIctkdfZ76VkLZC+VzXXrcEy9AD\n"
    "5PJ4kBT4k3T9A9deKQd1Z26OgX5iejr7cRsz0XfX1AEdZA==\n"
    "-----END CERTIFICATE-----\n";
static const char note_v1[] =
    "BEdqSXQj00sgvd5Y5g+U2eZIwEUdt0v9nSlypN3RrM7wsxBiKuqkPxAdJXZqbxbK5sSb9vxePR4IAoCo0MprrG4M85"
    "ZNUas4HTgH7/BSexTo6fJZEmSSGXqQaT3zoqbBNcxIzBWxZyvZyWQXH6xeqQJfVuokIVJB/5nCfBVYEyTFQS7TKw0v"
    "5gUz8sHpr3KDNDBAhtskArH8Y3NHrAZc0ZNXvvsfsdf9DtLuQ50+mQDJOwr1Fm3opwvcBE2T14lr0e2vMFWlLyEw6a"
    "aOlarWBif26O0g2PagsNt+3DGxCbfM2Q63av/9oiFRf6w1cdJHHgV/vkt978eVI6ikeRNDIg==";
static const char note_v2[] =
    "TSPvAR+fvOlIPwKK5taSgJ9T3k1tHcNZmtbQzRjRTyClXDUy8EfKtZ387s0zVA7FxNuBLW8K8vyltXSaxk34tpG0zO"
    "K5vgbRaIJ5UVcQdOHOrxh5MILFHDbsrg76h/zTo7NAaeaaakQHl0rHodfXPQr7UBnD70zmKbyC8JDsnitG1NAFdNKL"
    "T0XkSvhqENz+0lE/45yJSLxT6FBMjnGInuF9nW1VMtA3JAKmfXGstEm0QCQu4sEji5V0aYctXgWVYdVkCc4aGMt/jb"
    "O1oqg/7MbpenLDDFzgf8sVg4GPEgQbXIdNM9NXOi253l/CnWkN+5PEwXzj7X3xcq/XlosIXg==";
static const char subject_v1[] =
    "bah8gLypRzwecd7s0o+B2E/UVFJheuDj/x4zkqaciW8nzERu4swOhFVuzgfWrJqNLHN03VairMUYfwYC5w+5rPkrQv"
    "BiHb/wV2dKW+sFMxyK3/rfdPJ+hy9ZDWJH2Qt6U4pctXHnRgcXDwMFoSp/t4QA1z5O7YJ+oopM9PC4bTluIE4CHcw2"
    "54djtYXv00cpnmn2pERR1tw80U71gvjb9jOiUgfxLN/AJ/kesF8STZ86aQztO+aYqQ0rOS+WEVGR2r7WWdTbq5KsqY"
    "XM3ien29esYIkLTj7y3SAmcQCNCN5thsLkci1sssM8YELKV2ON0j3Vul8JhuKRaIp/xmwiQg==";
static const char confirm_v2[] =
    "EnAkPqPYl/Qoj0DVFRtqSoiD3nTT3bT88xx0DDkfLw0IeCF3KBDcqH6tZQG78ccmU/zGlvpIPKpd0alp+uRLcOqnHQ"
    "yXHq0DBTRHCObVXRKaxbzx6xHb6Sc4gAZLn2HZWtKnUmkqb2fuUVRp+u4yaCqD4m6IuqlsFth42YzkyIC8sdxmVLDb"
    "75gmjnOAbYWo7eI8gLMh9tXyIRsg7h+FpIUsZVPAJjjyYuoui7M2W5sqikeklra8OpS/QpWRctRPQg1t0620sYzPOi"
    "Udzi/e5fKnSqmyNv7QqsKW9EBaa6wfJ5d8jGszexioSKs/Qbp7H8XTXjuxfMY5BbUIt7RmEw==";

#endif /* SNS_VECTORS_H */
